// A sound card that plays into nothing. Firefox keeps an AudioContext suspended without a device,
// so a private PulseAudio with a null sink stands in; Chromium needs none.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { first, pause } from './wait.mjs';

const PULSEAUDIO = first('/usr/bin/pulseaudio');

/** Starts the sound card; answers the environment a program needs to find it, and `stop`. */
export async function soundcard() {
  if (!PULSEAUDIO) throw new Error('PulseAudio is not installed (apt: pulseaudio); Firefox needs a sound card');
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'shardcast-sound-'));
  const socket = path.join(home, 'socket');
  const daemon = spawn(
    PULSEAUDIO,
    [
      ...['-n', '--daemonize=no', '--exit-idle-time=-1', '--use-pid-file=no', '--disable-shm=yes'],
      ...['--realtime=no', '--high-priority=no', '-L', 'module-null-sink'],
      ...['-L', `module-native-protocol-unix auth-anonymous=1 auth-cookie-enabled=0 socket=${socket}`],
    ],
    { stdio: 'ignore', env: { ...process.env, HOME: home, XDG_RUNTIME_DIR: home } },
  );
  const stop = () => {
    daemon.kill();
    fs.rmSync(home, { recursive: true, force: true });
  };
  process.once('exit', stop);
  for (let waited = 0; !fs.existsSync(socket); waited += 50) {
    if (waited > 10000 || daemon.exitCode !== null) throw new Error('PulseAudio did not start');
    await pause(50);
  }
  return { env: { PULSE_SERVER: `unix:${socket}` }, stop };
}
