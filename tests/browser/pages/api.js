// A plain client of the Realtime API, as its documentation describes one.

export class ApiError extends Error {
  constructor(status, code, description, where) {
    super(`${where}: ${status} ${code ?? ''} ${description ?? ''}`);
    Object.assign(this, { status, code, description });
  }
}

/** The HTTPS calls; answers are the parsed bodies, failures throw. */
export class Api {
  constructor({ base, app, secret }) {
    Object.assign(this, { base, app, secret });
  }

  async call(method, path, body, { expect, timeout = 20000 } = {}) {
    const where = `${method} ${path.replace(/[0-9a-f]{32}/g, (id) => `${id.slice(0, 6)}…`)}`;
    const response = await fetch(`${this.base}/apps/${this.app}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.secret}` },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(timeout),
    });
    const text = await response.text();
    let json;
    try {
      json = JSON.parse(text);
    } catch {
      throw new ApiError(response.status, 'no JSON', text.slice(0, 200), where);
    }
    const type = response.headers.get('content-type') ?? '';
    if (!type.startsWith('application/json')) throw new ApiError(response.status, 'content type', type, where);
    if (!response.ok || json.errorCode !== undefined || json.errorDescription !== undefined) {
      throw new ApiError(response.status, json.errorCode, json.errorDescription, where);
    }
    if (expect && response.status !== expect) {
      throw new ApiError(response.status, 'status', `expected ${expect}`, where);
    }
    return json;
  }

  newSession = (offer) =>
    this.call('POST', '/sessions/new', offer && { sessionDescription: offer }, { expect: 201 });
  newTracks = (id, body) => this.call('POST', `/sessions/${id}/tracks/new`, body, { expect: 200 });
  renegotiate = (id, description) =>
    this.call('PUT', `/sessions/${id}/renegotiate`, { sessionDescription: description }, { expect: 200 });
  close = (id, body) => this.call('PUT', `/sessions/${id}/tracks/close`, body, { expect: 200 });
  update = (id, tracks) => this.call('PUT', `/sessions/${id}/tracks/update`, { tracks }, { expect: 200 });
  get = (id) => this.call('GET', `/sessions/${id}`);
  delete = (id) => this.call('DELETE', `/sessions/${id}`);
}

/** One session with its RTCPeerConnection. SDP exchanges wait for each other. */
export class Session {
  static async open(api, config = {}) {
    const { sessionId } = await api.newSession();
    return new Session(api, sessionId, config);
  }

  constructor(api, id, config) {
    Object.assign(this, { api, id, queue: Promise.resolve() });
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers: [], ...config });
  }

  inTurn(exchange) {
    const done = this.queue.then(exchange);
    this.queue = done.catch(() => {});
    return done;
  }

  connected(within = 10000) {
    return settle(this.pc, 'connectionstatechange', within, () => {
      if (this.pc.connectionState === 'failed') throw new Error('the connection failed');
      return this.pc.connectionState === 'connected';
    }).catch((e) => {
      throw new Error(`${e.message}; ice ${this.pc.iceConnectionState}, state ${this.pc.connectionState}`);
    });
  }

  /** Case A: `[{track, trackName, codec?, encodings?}]` pushed with our offer. */
  push(media) {
    return this.inTurn(async () => {
      const transceivers = media.map(({ track, codec, encodings }) => {
        const init = { direction: 'sendonly', ...(encodings && { sendEncodings: encodings }) };
        const transceiver = this.pc.addTransceiver(track, init);
        if (codec) prefer(transceiver, track.kind, codec);
        return transceiver;
      });
      await this.pc.setLocalDescription(await this.pc.createOffer());
      const tracks = media.map(({ trackName }, i) => ({
        location: 'local',
        mid: transceivers[i].mid,
        trackName,
      }));
      const reply = await this.api.newTracks(this.id, { sessionDescription: offer(this.pc), tracks });
      same('requiresImmediateRenegotiation', reply.requiresImmediateRenegotiation, false);
      allWell(reply.tracks, tracks.length);
      reply.tracks.forEach((item, i) => {
        same('mid', item.mid, tracks[i].mid);
        same('trackName', item.trackName, tracks[i].trackName);
      });
      await this.pc.setRemoteDescription(reply.sessionDescription);
      return tracks.map(({ mid, trackName }, i) => ({ mid, trackName, sessionId: this.id, kind: media[i].track.kind }));
    });
  }

  /** Publishes another name on a transceiver that is negotiated already. */
  republish(mid, trackName) {
    return this.inTurn(async () => {
      await this.pc.setLocalDescription(await this.pc.createOffer());
      const tracks = [{ location: 'local', mid, trackName }];
      const reply = await this.api.newTracks(this.id, { sessionDescription: offer(this.pc), tracks });
      allWell(reply.tracks, 1);
      await this.pc.setRemoteDescription(reply.sessionDescription);
    });
  }

  /** Case D: pulls `[{sessionId, trackName, simulcast?}]`; the server offers. */
  pull(remote) {
    return this.inTurn(async () => {
      const reply = await this.api.newTracks(this.id, { tracks: remote.map(asRemote) });
      allWell(reply.tracks, remote.length);
      same('requiresImmediateRenegotiation', reply.requiresImmediateRenegotiation, true);
      same('type', reply.sessionDescription.type, 'offer');
      await this.answer(reply.sessionDescription);
      return this.received(reply.tracks, remote);
    });
  }

  /** Answers an offer of the server. */
  async answer(description) {
    await this.pc.setRemoteDescription(description);
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    const { type, sdp } = this.pc.currentLocalDescription;
    await this.api.renegotiate(this.id, { type, sdp });
  }

  /** Case E: pulls with recvonly transceivers of our own; `kind` of each is needed. */
  pullOffering(remote) {
    return this.inTurn(async () => {
      remote.forEach(({ kind }) => this.pc.addTransceiver(kind, { direction: 'recvonly' }));
      await this.pc.setLocalDescription(await this.pc.createOffer());
      const reply = await this.api.newTracks(this.id, {
        sessionDescription: offer(this.pc),
        tracks: remote.map((track) => ({ ...asRemote(track), kind: track.kind })),
      });
      allWell(reply.tracks, remote.length);
      same('requiresImmediateRenegotiation', reply.requiresImmediateRenegotiation, false);
      same('type', reply.sessionDescription.type, 'answer');
      await this.pc.setRemoteDescription(reply.sessionDescription);
      return this.received(reply.tracks, remote);
    });
  }

  received(items, remote) {
    return items.map((item, i) => {
      same('sessionId', item.sessionId, remote[i].sessionId);
      same('trackName', item.trackName, remote[i].trackName);
      const transceiver = this.pc.getTransceivers().find((t) => t.mid === item.mid);
      if (!transceiver) throw new Error(`no transceiver has the mid ${item.mid} of the pull's result`);
      if (!/recv/.test(transceiver.currentDirection ?? '')) {
        throw new Error(`the pulled transceiver ${item.mid} is ${transceiver.currentDirection}`);
      }
      return { mid: item.mid, track: transceiver.receiver.track };
    });
  }

  /** Stops media at once, without SDP. */
  async closeByForce(mids) {
    const reply = await this.api.close(this.id, { tracks: mids.map((mid) => ({ mid })), force: true });
    allClosed(reply, mids);
    if (reply.sessionDescription) throw new Error('a forced close brings no SDP');
  }

  /** Stops the transceivers and tells the server with an offer. */
  close(mids) {
    return this.inTurn(async () => {
      const transceivers = this.pc.getTransceivers().filter((t) => mids.includes(t.mid));
      transceivers.forEach((transceiver) => transceiver.stop());
      await this.pc.setLocalDescription(await this.pc.createOffer());
      const tracks = mids.map((mid) => ({ mid }));
      const reply = await this.api.close(this.id, { tracks, sessionDescription: offer(this.pc), force: false });
      allClosed(reply, mids);
      await this.pc.setRemoteDescription(reply.sessionDescription);
    });
  }

  /** Shows another publication, or another layer, on a pulled transceiver. */
  async update(mid, remote) {
    const reply = await this.api.update(this.id, [{ ...asRemote(remote), mid }]);
    allWell(reply.tracks, 1);
    same('mid', reply.tracks[0].mid, mid);
    if (reply.sessionDescription) throw new Error('an update brings no SDP');
  }

  /** New ICE credentials through an offer to `renegotiate`. */
  restartIce() {
    return this.inTurn(async () => {
      const before = ufrag(this.pc.localDescription.sdp);
      this.pc.restartIce();
      await this.pc.setLocalDescription(await this.pc.createOffer());
      const reply = await this.api.renegotiate(this.id, offer(this.pc));
      same('type', reply.sessionDescription?.type, 'answer');
      const server = [this.pc.remoteDescription.sdp, reply.sessionDescription.sdp].map(ufrag);
      await this.pc.setRemoteDescription(reply.sessionDescription);
      return { before, after: ufrag(this.pc.localDescription.sdp), server };
    });
  }

  get() {
    return this.api.get(this.id);
  }

  /** Leaves. The server is told first: a closed connection may end the session by itself. */
  async end() {
    await this.api.delete(this.id).finally(() => this.pc.close());
  }
}

/** Keeps only `codec` (and its retransmissions) on a sending transceiver. */
export function prefer(transceiver, kind, codec) {
  const wanted = `${kind}/${codec}`.toLowerCase();
  const all = RTCRtpSender.getCapabilities(kind).codecs;
  const ours = all.filter((c) => c.mimeType.toLowerCase() === wanted);
  if (!ours.length) throw new Error(`this browser cannot send ${codec}`);
  // RED needs the codec it repeats; video needs rtx beside it.
  const beside = kind === 'audio' ? /\/opus$/i : /\/rtx$/i;
  transceiver.setCodecPreferences([...ours, ...all.filter((c) => beside.test(c.mimeType) && !ours.includes(c))]);
}

/** Waits for `event` on `target` until `done()`. */
export function settle(target, event, within, done) {
  return new Promise((resolve, reject) => {
    const finish = (f, value) => {
      clearTimeout(timer);
      target.removeEventListener(event, look);
      f(value);
    };
    const look = () => {
      try {
        if (done()) finish(resolve);
      } catch (e) {
        finish(reject, e);
      }
    };
    const timer = setTimeout(() => finish(reject, new Error(`no ${event} in ${within} ms`)), within);
    target.addEventListener(event, look);
    look();
  });
}

const offer = (pc) => ({ type: 'offer', sdp: pc.localDescription.sdp });
const ufrag = (sdp) => /a=ice-ufrag:(\S+)/.exec(sdp)?.[1];
const asRemote = ({ sessionId, trackName, simulcast }) => ({
  location: 'remote',
  sessionId,
  trackName,
  ...(simulcast && { simulcast }),
});

function same(what, got, want) {
  if (got !== want) throw new Error(`${what} is ${JSON.stringify(got)}, expected ${JSON.stringify(want)}`);
}

function allWell(items, count) {
  same('number of results', items?.length, count);
  const bad = items.find((item) => item.errorCode);
  if (bad) throw new ApiError(200, bad.errorCode, bad.errorDescription, `track ${bad.trackName ?? bad.mid}`);
}

function allClosed(reply, mids) {
  same('closed mids', reply.tracks.map((t) => t.mid).sort().join(), [...mids].sort().join());
  allWell(reply.tracks, mids.length);
}
