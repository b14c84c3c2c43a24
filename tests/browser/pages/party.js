// The page of the partytracks tests: one PartyTracks object, its pushes and its pulls.

import { PartyTracks } from 'partytracks/client';
import { BehaviorSubject, of } from 'rxjs';

import './stage.js';

const party = new PartyTracks({ prefix: '/partytracks' });
const states = [];
party.peerConnectionState$.subscribe((state) => states.push(state));
party.sessionError$.subscribe((error) => console.error('session error', error));
const running = {};

/** Pushes a track; answers the metadata that others pull by. */
function push(name, track, encodings) {
  return new Promise((pushed, failed) => {
    const options = encodings && { sendEncodings$: of(encodings) };
    const subscription = party.push(of(track), options).subscribe({ next: pushed, error: failed });
    running[name] = { subscription };
  });
}

/** Pulls by metadata into a screen of that name; resolves with the first track. */
function pull(name, metadata, rid) {
  return new Promise((pulled, failed) => {
    const wanted = new BehaviorSubject(metadata);
    const preferredRid$ = new BehaviorSubject(rid);
    const options = { simulcast: { preferredRid$ } };
    const state = (running[name] = { wanted, preferredRid$, tracks: 0 });
    state.subscription = party.pull(wanted, options).subscribe({
      next: (track) => {
        state.tracks++;
        window.stage.screens.party ??= {};
        window.stage.screens.party[name]?.stop();
        window.stage.screens.party[name] = new window.Screen([track]);
        pulled();
      },
      error: failed,
    });
  });
}

const stop = (name) => running[name].subscription.unsubscribe();

Object.assign(window, { party: { push, pull, stop, running, states } });
