//! One TLS connection: ciphertext in, plaintext out, and back.
//!
//! Invariants: buffers hold what one call brought, never more; an error leaves the alert that
//! explains it to be sent.
//!
//! Not here: sockets and deadlines.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

/// A connection's TLS.
#[derive(Debug)]
pub(crate) struct Filter {
    tls: ServerConnection,
}

impl Filter {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        // Responses are bounded by us; a limit here would silently cut them.
        tls.set_buffer_limit(None);
        Ok(Self { tls })
    }

    /// Takes what arrived; appends what it meant to `plain`. False once the peer said that it
    /// sends no more.
    pub(crate) fn handle_cipher(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<bool, rustls::Error> {
        while !bytes.is_empty() {
            let took = self.tls.read_tls(&mut bytes).unwrap_or(0);
            let state = self.tls.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            if self.tls.reader().read_exact(&mut plain[start..]).is_err() {
                plain.truncate(start);
            }
            if state.peer_has_closed() {
                return Ok(false);
            }
            if took == 0 {
                return Err(rustls::Error::General("TLS records that cannot be held".into()));
            }
        }
        Ok(true)
    }

    /// Takes what to say.
    pub(crate) fn handle_plain(&mut self, plain: &[u8]) {
        // Writing to memory without a limit does not fail.
        let _ = self.tls.writer().write_all(plain);
    }

    /// Appends what to send to `cipher`.
    pub(crate) fn poll_cipher(&mut self, cipher: &mut Vec<u8>) {
        while self.tls.wants_write() {
            if self.tls.write_tls(cipher).is_err() {
                break;
            }
        }
    }

    /// Says goodbye, so that the peer can tell the end from a cut.
    pub(crate) fn close(&mut self) {
        self.tls.send_close_notify();
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }
}
