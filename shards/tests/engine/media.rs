//! Media from publisher to subscribers, across shards and through loss.

use std::time::Duration;

use str0m::media::MediaKind;

use crate::world::World;

const FRAME: Duration = Duration::from_millis(20);

#[test]
fn audio_and_video_reach_a_subscriber_on_another_shard() {
    let mut world = World::new(2);
    let (publisher, viewer) = (world.add_client(), world.add_client());
    let (ours, theirs) = (world.create(0), world.create(1));
    let names = [("mic", MediaKind::Audio), ("cam", MediaKind::Video)];
    let mids = world.push(publisher, ours, &names);
    world.connect(publisher);
    world.run(Duration::from_millis(200));
    let now = world.now;
    world.clients[publisher].send(&mids[0], 1, true, now);
    world.clients[publisher].send(&mids[1], 2, true, now);
    world.run(FRAME);
    let pulled = world.pull(viewer, theirs, &[(ours, "mic"), (ours, "cam")]);
    assert_eq!(pulled, ["0", "1"], "mids are small decimals in request order");
    world.connect(viewer);
    for n in 0..100 {
        let now = world.now;
        let keyframe = world.clients[publisher].keyframes_wanted > 0 || n == 0;
        world.clients[publisher].keyframes_wanted = 0;
        world.clients[publisher].send(&mids[0], 1, true, now);
        world.clients[publisher].send(&mids[1], 2, keyframe, now);
        world.run(FRAME);
    }
    let got = &world.clients[viewer].got;
    for (track, label) in [(1, "audio"), (2, "video")] {
        let numbers: Vec<u32> =
            got.iter().map(|got| got.stamp()).filter(|s| s.0 == track).map(|s| s.1).collect();
        assert!(numbers.len() > 80, "{label}: {} packets", numbers.len());
        let expected: Vec<u32> = (numbers[0]..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "{label} arrives in order, without a gap");
    }
}
