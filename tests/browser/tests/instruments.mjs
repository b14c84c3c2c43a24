// The instruments themselves, on two RTCPeerConnections in one page: no server.

import { check, refuses, test } from '../lib/suite.mjs';

for (const kind of ['chromium', 'firefox']) {
  test(`${kind} reads its own frame codes and notes, and refuses another's`, { browsers: [kind], server: false }, async (t) => {
    const tab = await t.stage(kind);
    const report = await tab.run(async () => {
      const studio = new Studio(5);
      const tracks = await loop([studio.video, studio.audio]);
      window.screens = tracks.map((track) => new Screen([track]));
      return [await screens[0].sees(5), await screens[1].hears(5)];

      async function loop(sent) {
        const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
        a.onicecandidate = (e) => e.candidate && b.addIceCandidate(e.candidate);
        b.onicecandidate = (e) => e.candidate && a.addIceCandidate(e.candidate);
        const stream = new MediaStream(sent);
        sent.forEach((track) => a.addTransceiver(track, { streams: [stream] }));
        const got = [];
        b.ontrack = (e) => got.push(e.track);
        await a.setLocalDescription();
        await b.setRemoteDescription(a.localDescription);
        await b.setLocalDescription();
        await a.setRemoteDescription(b.localDescription);
        return got;
      }
    });
    t.note(`${report[0].width}x${report[0].height}, ${report[0].took} ms to ${report[0].frames} frames, ${report[1].hertz} Hz`);
    await refuses(/but publisher 5's picture was there/, () => tab.run(() => screens[0].sees(6, { within: 500 })));
    await refuses(/not publisher 6's 1300 Hz/, () => tab.run(() => screens[1].hears(6, { within: 500 })));
  });

  test(`${kind} measures its own lip sync`, { browsers: [kind], server: false }, async (t) => {
    const tab = await t.stage(kind);
    const skew = await tab.run(async () => {
      const metronome = new Metronome();
      return measure(new MediaStream([metronome.audio, metronome.video]), { beats: 4 });
    });
    t.note(`sound ${skew.median} ms after the picture (${skew.least} to ${skew.most})`);
    check(Math.abs(skew.median) < 100, `the instruments are ${skew.median} ms apart`);
  });
}
