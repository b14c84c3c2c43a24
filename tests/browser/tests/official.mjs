// The call sequences of Cloudflare's example applications, made call by call as they make them:
// no content type, no gathered candidates, no waiting where they do not wait.

import { check, equal, test } from '../lib/suite.mjs';

// In the page: `call` as the examples' fetch wrappers do it, and `arrivals`, their promise of a
// `track` event for each mid within five seconds.
const toolbox = () => {
  window.caller = ({ base, app, secret }) => async (path, body, method = 'POST') => {
    const response = await fetch(`${base}/apps/${app}${path}`, {
      method,
      headers: { Authorization: `Bearer ${secret}` },
      body: body && JSON.stringify(body),
    });
    const answer = await response.json();
    if (answer.errorCode || !response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  };
  window.newPeer = () => (window.peers ??= []).push(new RTCPeerConnection({ iceServers: [], bundlePolicy: 'max-bundle' })) && peers.at(-1);
  window.arrivals = (pc, tracks) =>
    Promise.all(
      tracks.map(
        ({ mid }) =>
          new Promise((arrived, failed) => {
            setTimeout(() => failed(new Error(`no track event for mid ${mid} in 5 s`)), 5000);
            pc.addEventListener('track', ({ transceiver, track }) => transceiver.mid === mid && arrived(track));
          }),
      ),
    );
};

test('echo: push, wait for ICE only, pull both tracks at once on a second session', {}, async (t) => {
  const tab = await t.stage('chromium');
  await tab.run(toolbox);
  const update = await tab.run(async (api) => {
    const call = caller(api);
    const studio = (stage.studios[30] = new Studio(30));
    const local = newPeer();
    const { sessionId } = await call('/sessions/new');
    const transceivers = [studio.audio, studio.video].map((track) => local.addTransceiver(track, { direction: 'sendonly' }));
    const offer = await local.createOffer();
    await local.setLocalDescription(offer);
    const pushed = await call(`/sessions/${sessionId}/tracks/new`, {
      sessionDescription: { sdp: offer.sdp, type: 'offer' },
      tracks: transceivers.map(({ mid, sender }) => ({ location: 'local', mid, trackName: sender.track.id })),
    });
    const ice = settle(local, 'iceconnectionstatechange', 5000, () => /connected|completed/.test(local.iceConnectionState));
    await local.setRemoteDescription(new RTCSessionDescription(pushed.sessionDescription));
    await ice;

    const remote = newPeer();
    const second = await call('/sessions/new');
    const wanted = transceivers.map(({ sender }) => ({ location: 'remote', trackName: sender.track.id, sessionId }));
    const pulled = await call(`/sessions/${second.sessionId}/tracks/new`, { tracks: wanted });
    const events = arrivals(remote, pulled.tracks);
    if (pulled.requiresImmediateRenegotiation !== true) throw new Error('the pull wants no renegotiation');
    await remote.setRemoteDescription(pulled.sessionDescription);
    const answer = await remote.createAnswer();
    await remote.setLocalDescription(answer);
    const done = await call(`/sessions/${second.sessionId}/renegotiate`, { sessionDescription: { sdp: answer.sdp, type: 'answer' } }, 'PUT');
    const [audio, video] = await events;
    stage.screens.echo = { audio: new Screen([audio]), video: new Screen([video]) };
    await Promise.all([stage.hears({ as: 'echo', mid: 'audio', id: 30 }), stage.sees({ as: 'echo', mid: 'video', id: 30 })]);
    return done;
  }, t.api);
  equal(update, {}, 'the answer to renegotiate');
});

test('echo-simulcast: pull without preference, then update by the publisher\'s mid', { seconds: 180 }, async (t) => {
  const tab = await t.stage('chromium');
  await tab.run(toolbox);
  const widths = await tab.run(async (api) => {
    const call = caller(api);
    const studio = (stage.studios[31] = new Studio(31, { width: 1280, height: 720 }));
    const local = newPeer();
    const { sessionId } = await call('/sessions/new');
    const sendEncodings = [
      { rid: 'f', maxBitrate: 1_200_000, scaleResolutionDownBy: 1 },
      { rid: 'h', maxBitrate: 500_000, scaleResolutionDownBy: 2 },
      { rid: 'q', maxBitrate: 150_000, scaleResolutionDownBy: 4 },
    ];
    const transceiver = local.addTransceiver(studio.video, { direction: 'sendonly', sendEncodings });
    const offer = await local.createOffer();
    await local.setLocalDescription(offer);
    const trackName = studio.video.id;
    const pushed = await call(`/sessions/${sessionId}/tracks/new`, {
      sessionDescription: { sdp: offer.sdp, type: 'offer' },
      tracks: [{ location: 'local', mid: transceiver.mid, trackName }],
    });
    await local.setRemoteDescription(pushed.sessionDescription);
    await pause(3000);
    const remote = newPeer();
    const second = await call('/sessions/new');
    const pulled = await call(`/sessions/${second.sessionId}/tracks/new`, { tracks: [{ location: 'remote', trackName, sessionId }] });
    const events = arrivals(remote, pulled.tracks);
    await remote.setRemoteDescription(pulled.sessionDescription);
    await remote.setLocalDescription(await remote.createAnswer());
    const { sdp } = remote.currentLocalDescription;
    await call(`/sessions/${second.sessionId}/renegotiate`, { sessionDescription: { sdp, type: 'answer' } }, 'PUT');
    const [video] = await events;
    stage.screens.echo = { video: new Screen([video]) };
    await stage.sees({ as: 'echo', mid: 'video', id: 31 });
    const widths = [stage.screens.echo.video.element.videoWidth];
    for (const preferredRid of ['q', 'h', 'f']) {
      const simulcast = { preferredRid, priorityOrdering: 'asciibetical', ridNotAvailable: 'asciibetical' };
      // The mid of the *publishing* transceiver, as the example does.
      const tracks = [{ location: 'remote', sessionId, trackName, mid: transceiver.mid, simulcast }];
      await call(`/sessions/${second.sessionId}/tracks/update`, { tracks }, 'PUT');
      await pause(2000);
      // A browser on a slow machine takes its time to trust the path with the largest layer.
      const wide = { q: 320, h: 640, f: 1280 }[preferredRid];
      for (let n = 0; n < 200 && stage.screens.echo.video.element.videoWidth !== wide; n++) await pause(200);
      await stage.sees({ as: 'echo', mid: 'video', id: 31 });
      widths.push(stage.screens.echo.video.element.videoWidth);
    }
    return widths;
  }, t.api, 160000);
  t.note(`widths ${widths.join(', ')}`);
  equal(widths.slice(1), [320, 640, 1280], 'the widths after preferring q, h, f');
});

test('video-room: producer and consumer sessions, closes by force, a second generation', { seconds: 120 }, async (t) => {
  const tab = await t.stage('chromium');
  await tab.run(toolbox);
  await tab.run(async (api) => {
    const call = caller(api);
    const people = [32, 33, 34].map((id) => ({ id }));
    for (const person of people) {
      await produce(person, 1);
      person.consumer = { pc: newPeer(), id: (await call('/sessions/new')).sessionId };
    }
    for (const person of people) for (const other of people) if (other !== person) await subscribe(person, other);
    await everybodySeesEverybody();

    // The third one leaves its generation and comes back with another.
    const third = people[2];
    await forceClose(third.producer.id, third.producer.tracks);
    third.producer.pc.close();
    for (const person of people.slice(0, 2)) await forceClose(person.consumer.id, person.consumer[34]);
    await produce(third, 2);
    for (const person of people.slice(0, 2)) await subscribe(person, third);
    await everybodySeesEverybody();

    async function produce(person, generation) {
      const studio = (stage.studios[person.id] ??= new Studio(person.id, { width: 320, height: 180 }));
      const pc = newPeer();
      const { sessionId } = await call('/sessions/new');
      const transceivers = [studio.audio, studio.video].map((track) => pc.addTransceiver(track, { direction: 'sendonly' }));
      await pc.setLocalDescription(await pc.createOffer());
      const reply = await call(`/sessions/${sessionId}/tracks/new`, {
        sessionDescription: { type: 'offer', sdp: pc.localDescription.sdp },
        tracks: transceivers.map(({ mid, sender }) => ({
          location: 'local',
          mid,
          trackName: `${sender.track.kind}-${person.id}-${generation}`,
        })),
      });
      if (reply.requiresImmediateRenegotiation) throw new Error('a publish wants renegotiation');
      if (reply.sessionDescription.type !== 'answer') throw new Error('a publish needs an answer');
      await pc.setRemoteDescription(reply.sessionDescription);
      person.producer = { pc, id: sessionId, tracks: reply.tracks };
    }

    async function subscribe(person, other) {
      const { pc, id } = person.consumer;
      const reply = await call(`/sessions/${id}/tracks/new`, {
        tracks: other.producer.tracks.map(({ trackName }) => ({ location: 'remote', sessionId: other.producer.id, trackName })),
      });
      const bad = reply.tracks.find((track) => track.errorCode);
      if (bad) throw new Error(`${person.id} cannot pull from ${other.id}: ${JSON.stringify(bad)}`);
      await pc.setRemoteDescription(reply.sessionDescription);
      await pc.setLocalDescription(await pc.createAnswer());
      const { type, sdp } = pc.localDescription;
      await call(`/sessions/${id}/renegotiate`, { sessionDescription: { type, sdp } }, 'PUT');
      person.consumer[other.id] = reply.tracks;
      const byName = stage.screens[`${person.id} sees ${other.id}`] ?? {};
      Object.values(byName).forEach((screen) => screen.stop());
      stage.screens[`${person.id} sees ${other.id}`] = Object.fromEntries(
        reply.tracks.map(({ mid, trackName }) => {
          const { track } = pc.getTransceivers().find((t) => t.mid === mid).receiver;
          return [trackName.split('-')[0], new Screen([track])];
        }),
      );
    }

    async function forceClose(session, tracks) {
      const body = { tracks: tracks.map(({ mid }) => ({ mid })), force: true };
      const reply = await call(`/sessions/${session}/tracks/close`, body, 'PUT');
      const told = reply.tracks.map(({ mid }) => mid).join();
      if (told !== tracks.map(({ mid }) => mid).join()) throw new Error(`closed ${told}`);
    }

    async function everybodySeesEverybody() {
      for (const person of people) {
        for (const other of people.filter((o) => o !== person)) {
          const as = `${person.id} sees ${other.id}`;
          await Promise.all([
            stage.sees({ as, mid: 'video', id: other.id, frames: 5 }),
            stage.hears({ as, mid: 'audio', id: other.id }),
          ]).catch((e) => {
            throw new Error(`${as}: ${e.message}`);
          });
        }
      }
    }
  }, t.api, 110000);
});

test('whip-whep-server: an ingest discovers its tracks, a player pulls them by either offer', {}, async (t) => {
  const tab = await t.stage('chromium');
  await tab.run(toolbox);
  const discovered = await tab.run(async (api) => {
    const call = caller(api);
    const studio = (stage.studios[35] = new Studio(35));
    const pc = newPeer();
    pc.addTransceiver(studio.video, { direction: 'sendonly' });
    pc.addTransceiver(studio.audio, { direction: 'sendonly' });
    await pc.setLocalDescription(await pc.createOffer());
    const { sessionId } = await call('/sessions/new');
    const reply = await call(`/sessions/${sessionId}/tracks/new`, {
      sessionDescription: { type: 'offer', sdp: pc.localDescription.sdp },
      autoDiscover: true,
    });
    await pc.setRemoteDescription(reply.sessionDescription);
    window.ingest = reply.tracks.map(({ mid, trackName }) => {
      const { kind } = pc.getTransceivers().find((t) => t.mid === mid).sender.track;
      return { sessionId, trackName, kind };
    });
    return reply.tracks;
  }, t.api);
  equal(discovered.map(({ mid }) => mid), ['0', '1'], 'the mids discovered');
  check(discovered.every(({ trackName }) => trackName), `every discovered track has a name: ${JSON.stringify(discovered)}`);
  check(new Set(discovered.map(({ trackName }) => trackName)).size === 2, 'the names differ');
  for (const offering of [false, true]) {
    await tab.run(({ api, offering }) => stage.enjoy({ api, as: `player ${offering}`, tracks: ingest, id: 35, offering }), {
      api: t.api,
      offering,
    });
  }
});
