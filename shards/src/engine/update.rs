//! `tracks/update`: re-points live pulls, and chooses simulcast layers. Never touches SDP, so
//! it works whatever the signaling state.

use std::time::Instant;

use super::pull::{Item, Purpose, Seeking, track_key};
use super::{Engine, SessionKey};
use crate::command::{ItemError, Refusal, TrackObject, TracksReply};
use crate::mail::Ticket;
use crate::session::{Pulled, Session};

impl Engine {
    pub(super) fn update_tracks(
        &mut self,
        ticket: Ticket,
        key: Option<SessionKey>,
        tracks: Vec<TrackObject>,
        now: Instant,
    ) {
        let Some(key) = key else { return };
        let Some(session) = self.sessions.get(key) else { return };
        let (app, subscriber) = (session.app, session.id);
        let mut items = Vec::with_capacity(tracks.len());
        for (at, object) in tracks.into_iter().enumerate() {
            let Some(pulled) = addressed(session_of(self, key), &object) else {
                let target = Err(ItemError::AlreadyClosed);
                items.push(Item { object, target, settled: true });
                continue;
            };
            // Without a track named, only the layer changes.
            let unnamed = object.session_id.is_none() && object.track_name.is_none();
            let wanted = if unnamed { Ok(Ok(pulled.key.clone())) } else { track_key(app, &object) };
            let current = (pulled.key.clone(), pulled.feed);
            let target = match wanted {
                Err(field) => {
                    self.stop_seeking(&items);
                    let text = format!("tracks[{at}]: Missing {field} in track");
                    return self.answer(ticket, Err(Refusal::InvalidParams(text)));
                }
                Ok(Err(error)) => Err(error),
                Ok(Ok(wanted)) if wanted == current.0 => Ok(current),
                Ok(Ok(wanted)) => self.seek(&wanted, now).map(|feed| (wanted, feed)),
            };
            items.push(Item { object, target, settled: false });
        }
        let purpose = Purpose::Update;
        self.begin_seeking(ticket, key, Seeking::new(subscriber, now, items, purpose));
    }

    pub(super) fn finish_update(
        &mut self,
        key: SessionKey,
        items: &[Item],
        now: Instant,
    ) -> TracksReply {
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            let mut result = item.result();
            result.mid = item.object.mid.clone().unwrap_or_default();
            if item.target.is_ok() {
                match self.update_one(key, item, now) {
                    Ok(mid) => result.mid = mid,
                    Err(error) => result.error = Some(error),
                }
            }
            results.push(result);
        }
        TracksReply { tracks: results, ..TracksReply::default() }
    }

    fn update_one(
        &mut self,
        key: SessionKey,
        item: &Item,
        now: Instant,
    ) -> Result<String, ItemError> {
        let Ok((track, feed)) = &item.target else { return Err(ItemError::NotFoundTrack) };
        let pulled = addressed(session_of(self, key), &item.object);
        let pulled = pulled.ok_or(ItemError::AlreadyClosed)?;
        let (mid, same) = (pulled.mid.clone(), pulled.feed == *feed);
        if !same {
            let kept = pulled.simulcast.clone();
            self.repoint(key, &mid, track, *feed, kept, now)?;
        }
        if let Some(simulcast) = &item.object.simulcast {
            let meta = self.feeds.get(*feed).and_then(|feed| feed.meta.as_ref());
            // Re-pointing with a wish for a layer is fine for a track without layers.
            if same && !meta.is_some_and(|meta| meta.is_simulcast()) {
                return Err(ItemError::NotSimulcast);
            }
            let session = self.sessions.get_mut(key).ok_or(ItemError::AlreadyClosed)?;
            let pulled = session.pulled_by_mid(&mid).ok_or(ItemError::AlreadyClosed)?;
            pulled.simulcast = Some(simulcast.clone());
            let pull = pulled.pull().ok_or(ItemError::AlreadyClosed)?;
            if let Some(pull) = self.pulls.get_mut(pull) {
                pull.simulcast = Some(simulcast.clone());
            }
            self.choose_layer(pull, now);
        }
        Ok(mid)
    }
}

fn session_of(engine: &Engine, key: SessionKey) -> Option<&Session> {
    engine.sessions.get(key)
}

/// The live pull an object means: by its mid, or, as some clients send the publisher's mid, by
/// its track.
fn addressed<'a>(session: Option<&'a Session>, object: &TrackObject) -> Option<&'a Pulled> {
    let session = session?;
    let live = || session.pulled.iter().filter(|pulled| pulled.pull().is_some());
    let by_mid = live().find(|pulled| Some(&pulled.mid) == object.mid.as_ref());
    by_mid.or_else(|| {
        live().find(|pulled| {
            object.track_name.as_deref() == Some(&*pulled.key.name)
                && object.session_id.as_deref() == Some(&pulled.key.session.to_string())
        })
    })
}
