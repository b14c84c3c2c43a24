// Sources that can be recognised, and instruments that recognise them.

import { ahead, loudest, note, paint, read } from './code.js';

/** A publisher's media: a coded canvas and a note. Frames are painted by timer, 30 a second. */
export class Studio {
  constructor(id, { width = 640, height = 360, fps = 30 } = {}) {
    this.id = id;
    this.canvas = document.createElement('canvas');
    Object.assign(this.canvas, { width, height });
    this.canvas.style.width = '240px';
    document.body.append(this.canvas);
    this.number = 0;
    paint(this.canvas, id, 0);
    this.timer = setInterval(() => paint(this.canvas, id, ++this.number), 1000 / fps);
    this.video = this.canvas.captureStream(fps).getVideoTracks()[0];
  }

  /** The note as a track; made on first use. */
  get audio() {
    this.hum ??= hum(note(this.id));
    return this.hum.track;
  }

  stop() {
    clearInterval(this.timer);
    this.video.stop();
    this.hum?.stop();
    this.canvas.remove();
  }
}

/** The other end: shows tracks in a muted element and reads them. */
export class Screen {
  constructor(tracks) {
    this.stream = new MediaStream(tracks);
    this.element = document.createElement('video');
    Object.assign(this.element, { muted: true, autoplay: true, playsInline: true });
    this.element.style.width = '240px';
    this.element.srcObject = this.stream;
    document.body.append(this.element);
    this.element.play().catch(() => {});
    this.scratch = document.createElement('canvas');
  }

  look() {
    const { videoWidth, videoHeight } = this.element;
    return read(this.element, videoWidth, videoHeight, this.scratch);
  }

  /** Waits until `frames` different frames of publisher `id` were read in a row, by number. */
  async sees(id, { frames = 10, within = 15000 } = {}) {
    const started = performance.now();
    let last;
    let first;
    let moved = 0;
    let misread = 0;
    let wrong;
    for (;;) {
      const seen = this.look();
      if (seen.id === id) {
        if (last === undefined) [first, last] = [seen.number, seen.number];
        const step = ahead(last, seen.number);
        if (step > 0 && step < 2048) moved++;
        last = seen.number;
        if (moved >= frames) break;
      } else if (seen.id !== undefined) {
        wrong = seen.id;
        moved = 0;
      } else {
        misread++;
        this.why = seen.why;
      }
      if (performance.now() - started > within) {
        const state = `${moved} of ${frames} new frames of publisher ${id}, ${misread} looks in vain`;
        const other = wrong === undefined ? '' : `, but publisher ${wrong}'s picture was there`;
        throw new Error(`after ${within} ms: ${state} (last: ${this.why ?? '-'})${other}`);
      }
      await pause(20);
    }
    const took = performance.now() - started;
    const { videoWidth: width, videoHeight: height } = this.element;
    return { width, height, took: Math.round(took), frames: moved, spanned: ahead(first, last), misread };
  }

  /** Waits until the note of publisher `id` is the one heard. */
  async hears(id, { within = 15000 } = {}) {
    this.ear ??= ear(this.stream);
    const want = note(id);
    const started = performance.now();
    let heard;
    let steady = 0;
    while (steady < 5) {
      heard = this.ear.listen();
      const right = Math.abs(heard.hertz - want) < 20 && heard.level > -70 && heard.clear > 15;
      steady = right ? steady + 1 : 0;
      if (performance.now() - started > within) {
        const { hertz, level, clear } = heard;
        const loud = `${hertz.toFixed(0)} Hz at ${level.toFixed(0)} dB, ${clear.toFixed(0)} dB over the rest`;
        throw new Error(`after ${within} ms: heard ${loud}, not publisher ${id}'s ${want} Hz (audio ${this.ear.state})`);
      }
      await pause(40);
    }
    return { hertz: Math.round(heard.hertz), clear: Math.round(heard.clear) };
  }

  /** Counts the different frames that appear in `ms`; zero when the picture stands still. */
  async motion(ms = 1500) {
    const numbers = new Set();
    const end = performance.now() + ms;
    while (performance.now() < end) {
      const seen = this.look();
      if (seen.id !== undefined) numbers.add(`${seen.id}/${seen.number}`);
      await pause(20);
    }
    return Math.max(0, numbers.size - 1);
  }

  stop() {
    this.element.srcObject = null;
    this.element.remove();
    this.ear?.stop();
  }
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The page's one AudioContext, running. */
export function sound() {
  sound.context ??= new AudioContext({ sampleRate: 48000 });
  if (sound.context.state === 'suspended') sound.context.resume();
  return sound.context;
}

function hum(hertz) {
  const context = sound();
  const tone = new OscillatorNode(context, { frequency: hertz });
  const level = new GainNode(context, { gain: 0.4 });
  const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  tone.connect(level).connect(out);
  tone.start();
  // The nodes are kept, or Firefox may collect those that only the graph refers to.
  return { nodes: [tone, level, out], track: out.stream.getAudioTracks()[0], stop: () => tone.stop() };
}

function ear(stream) {
  const context = sound();
  const source = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
  const analyser = new AnalyserNode(context, { fftSize: 4096, smoothingTimeConstant: 0 });
  source.connect(analyser);
  return {
    nodes: [source, analyser],
    listen: () => loudest(analyser, context.sampleRate),
    stop: () => source.disconnect(),
    get state() {
      return context.state;
    },
  };
}
