// Lip sync: a publisher that flashes and beeps at one instant, and a viewer that times both.

import { pause, sound } from './studio.js';

const PERIOD = 1000;
const LENGTH = 120;

/** Black with a white flash and a 1 kHz beep each second. */
export class Metronome {
  constructor({ width = 640, height = 360 } = {}) {
    this.canvas = document.createElement('canvas');
    Object.assign(this.canvas, { width, height });
    document.body.append(this.canvas);
    const context = sound();
    const tone = new OscillatorNode(context, { frequency: 1000 });
    const gate = new GainNode(context, { gain: 0 });
    const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
    tone.connect(gate).connect(out);
    tone.start();
    this.nodes = [tone, gate, out]; // kept, or Firefox may collect them
    this.audio = out.stream.getAudioTracks()[0];
    this.video = this.canvas.captureStream(30).getVideoTracks()[0];
    const g = this.canvas.getContext('2d', { alpha: false });
    let lit = false;
    let x = 0;
    this.timer = setInterval(() => {
      const on = performance.now() % PERIOD < LENGTH;
      if (on !== lit) {
        gate.gain.setValueAtTime(on ? 0.5 : 0, context.currentTime);
        lit = on;
      }
      g.fillStyle = on ? '#fff' : '#000';
      g.fillRect(0, 0, width, height);
      g.fillStyle = '#777'; // keeps frames different, so that all are encoded
      g.fillRect((x += 5) % width, height - 20, 20, 20);
    }, 10);
  }

  stop() {
    clearInterval(this.timer);
    this.video.stop();
  }
}

/**
 * Times `beats` flashes and beeps as a listener meets them. Answers the skews in milliseconds;
 * positive means that sound comes after the picture.
 */
export async function measure(stream, { beats = 6, within = 25000 } = {}) {
  const flashes = [];
  const beeps = [];
  const stopEyes = eyes(stream, (at) => flashes.push(at));
  const stopEars = await ears(stream, (at) => beeps.push(at));
  const end = performance.now() + within;
  let skews = [];
  while (skews.length < beats && performance.now() < end) {
    await pause(100);
    // The first beats are left out: the browser is still moving its buffers then.
    skews = pair(flashes, beeps).slice(2);
  }
  stopEyes();
  stopEars();
  if (skews.length < beats) {
    throw new Error(`${flashes.length} flashes and ${beeps.length} beeps in ${within} ms make ${skews.length} pairs`);
  }
  skews.sort((a, b) => a - b);
  return {
    median: Math.round(skews[skews.length >> 1]),
    least: Math.round(skews[0]),
    most: Math.round(skews.at(-1)),
    beats: skews.length,
  };
}

function pair(flashes, beeps) {
  const skews = [];
  for (const flash of flashes) {
    const beep = beeps.find((at) => Math.abs(at - flash) < PERIOD / 2);
    if (beep !== undefined) skews.push(beep - flash);
  }
  return skews;
}

function eyes(stream, onFlash) {
  const video = document.createElement('video');
  Object.assign(video, { muted: true, autoplay: true, playsInline: true, srcObject: stream });
  video.style.width = '160px';
  document.body.append(video);
  video.play().catch(() => {});
  const scratch = document.createElement('canvas');
  Object.assign(scratch, { width: 16, height: 8 });
  const g = scratch.getContext('2d', { alpha: false, willReadFrequently: true });
  let lit = true;
  let live = true;
  const look = (_, frame) => {
    if (!live) return;
    g.drawImage(video, 0, 0, 16, 8);
    const { data } = g.getImageData(0, 0, 16, 4);
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += data[i];
    const on = sum / (data.length / 4) > 128;
    if (on && !lit) onFlash(Math.max(frame.expectedDisplayTime ?? 0, performance.now() - 20));
    lit = on;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  return () => {
    live = false;
    video.remove();
  };
}

async function ears(stream, onBeep) {
  const context = sound();
  const code = `registerProcessor('onset', class extends AudioWorkletProcessor {
    quiet = 0;
    process([[samples]]) { // Firefox gives no channel at all for silence
      let peak = 0;
      for (const s of samples ?? []) peak = Math.max(peak, Math.abs(s));
      if (peak > 0.1) {
        if (this.quiet > 0.2 * sampleRate) this.port.postMessage(0);
        this.quiet = 0;
      } else this.quiet += 128;
      return true;
    }
  })`;
  const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  if (!ears.ready) await (ears.ready = context.audioWorklet.addModule(url));
  const source = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
  const node = new AudioWorkletNode(context, 'onset');
  node.port.onmessage = () => onBeep(performance.now());
  source.connect(node).connect(new GainNode(context, { gain: 0 })).connect(context.destination);
  return () => source.disconnect();
}
