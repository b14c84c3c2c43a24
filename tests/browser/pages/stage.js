// What a test asks a page to do. State lives in the page, by the name given as `as`.

import { Api, Session, prefer, settle } from './api.js';
import { Metronome, measure } from './lipsync.js';
import { Screen, Studio, pause } from './studio.js';

const sessions = {};
const studios = {};
const screens = {}; // by session name and mid

/** Publishes the coded canvas and/or note of publisher `id`; answers the tracks as others name them. */
async function publish({ api, as = 'pub', id, kinds = ['audio', 'video'], codec, size, encodings, names, red }) {
  const studio = (studios[id] ??= new Studio(id, size));
  const session = (sessions[as] ??= await Session.open(new Api(api)));
  const media = kinds.map((kind, i) => ({
    track: studio[kind],
    trackName: names?.[i] ?? `${kind}-${id}-${Math.random().toString(36).slice(2, 8)}`,
    codec: kind === 'video' ? codec : red && 'red',
    encodings: kind === 'video' ? encodings : undefined,
  }));
  return session.push(media);
}

/** Pulls tracks (`{sessionId, trackName, kind}`), by the server's offer or by ours. */
async function watch({ api, as = 'view', tracks, offering = false }) {
  const session = (sessions[as] ??= await Session.open(new Api(api)));
  const received = await (offering ? session.pullOffering(tracks) : session.pull(tracks));
  screens[as] ??= {};
  for (const { mid, track } of received) {
    screens[as][mid]?.stop();
    screens[as][mid] = new Screen([track]);
  }
  return received.map(({ mid }) => mid);
}

const connected = ({ as, within }) => sessions[as].connected(within);
const sees = ({ as = 'view', mid, id, ...how }) => screens[as][mid].sees(id, how).catch(withStats(as, mid));
const hears = ({ as = 'view', mid, id, ...how }) => screens[as][mid].hears(id, how).catch(withStats(as, mid));
const motion = ({ as = 'view', mid, ms }) => screens[as][mid].motion(ms);
const get = ({ as }) => sessions[as].get();
const sessionId = ({ as }) => sessions[as].id;

/** Watches and requires publisher `id`'s picture and note on the tracks, by their kind. */
async function enjoy({ id, frames, within, ...how }) {
  const mids = await watch(how);
  return Promise.all(
    mids.map((mid, i) => {
      const sense = how.tracks[i].kind === 'audio' ? hears : sees;
      return sense({ as: how.as, mid, id, frames, within }).then((report) => ({ mid, ...report }));
    }),
  );
}

/** What the statistics say of the media of a session: codec, bytes, frames by m-line and layer. */
async function stats({ as }) {
  const report = await sessions[as].pc.getStats();
  const rows = [];
  for (const s of report.values()) {
    if (s.type !== 'inbound-rtp' && s.type !== 'outbound-rtp') continue;
    rows.push({
      type: s.type,
      mid: s.mid,
      kind: s.kind,
      rid: s.rid,
      codec: report.get(s.codecId)?.mimeType.split('/')[1],
      width: s.frameWidth,
      height: s.frameHeight,
      frames: s.framesDecoded ?? s.framesSent,
      bytes: s.bytesReceived ?? s.bytesSent,
      lost: s.packetsLost,
      freezes: s.freezeCount,
    });
  }
  return rows;
}

// Tells with a failure whether media came at all.
const withStats = (as, mid) => async (error) => {
  const row = sessions[as] && (await stats({ as })).find((r) => r.mid === mid && r.type === 'inbound-rtp');
  throw row ? new Error(`${error.message}; ${row.bytes} bytes of ${row.codec} came, ${row.lost} packets lost`) : error;
};

/** Waits until `ask` of the statistics' rows is true; throws with the rows otherwise. */
async function until({ as, within = 15000 }, ask) {
  const end = performance.now() + within;
  for (;;) {
    const rows = await stats({ as });
    if (ask(rows)) return rows;
    if (performance.now() > end) throw new Error(`statistics after ${within} ms: ${JSON.stringify(rows)}`);
    await pause(200);
  }
}

async function endAll() {
  for (const byMid of Object.values(screens)) Object.values(byMid).forEach((screen) => screen.stop());
  Object.values(studios).forEach((studio) => studio.stop());
  await Promise.allSettled(Object.values(sessions).map((session) => session.end()));
}

Object.assign(window, { Api, Session, Screen, Studio, Metronome, measure, prefer, settle, pause });
window.stage = {
  ...{ sessions, studios, screens, publish, watch, enjoy, connected, sees, hears, motion },
  ...{ get, sessionId, stats, until, endAll },
};
document.title = 'ready';
