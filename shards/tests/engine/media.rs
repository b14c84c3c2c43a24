//! Media from publisher to subscribers, across shards and through loss.

use str0m::media::MediaKind;

use crate::world::{World, secs};

#[test]
fn audio_and_video_reach_a_subscriber_on_another_shard() {
    let mut world = World::new(2);
    let names = [("mic", MediaKind::Audio), ("cam", MediaKind::Video)];
    let (_, session, _) = world.publisher(0, &names);
    let (viewer, _, mids) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    assert_eq!(mids, ["0", "1"], "mids are small decimals in request order");
    world.run(secs(2));
    for (track, label) in [(1, "audio"), (2, "video")] {
        let numbers = world.clients[viewer].numbers(track);
        assert!(numbers.len() > 80, "{label}: {} packets", numbers.len());
        let expected: Vec<u32> = (numbers[0]..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "{label} arrives in order, without a gap");
    }
}
