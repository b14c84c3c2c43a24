"""Tests with aiortc, a WebRTC client that shares no code with libwebrtc: its own ICE, RTP and
congestion control, OpenSSL's DTLS, libav's codecs.

usage: aiortc_peer.py BINARY OUT     (inside the network namespace of tests/run)
"""

import asyncio
import json
import math
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from fractions import Fraction

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from av import AudioFrame, VideoFrame

APP, SECRET = "b10c0de5" * 4, "5ec2e7".ljust(64, "0")
WIDTH, HEIGHT, RATE = 640, 360, 30
LEFT, RIGHT = 200, 60  # brightness of the halves of the picture
TONE_HZ = 440
WATCH_SECONDS = 4


class Picture(MediaStreamTrack):
    """Bright on the left, dark on the right."""

    kind = "video"

    def __init__(self):
        super().__init__()
        self.sent = 0
        self.began = time.monotonic()
        row = bytes([LEFT]) * (WIDTH // 2) + bytes([RIGHT]) * (WIDTH // 2)
        self.rows = row * HEIGHT

    async def recv(self):
        await asyncio.sleep(max(0, self.began + self.sent / RATE - time.monotonic()))
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        frame.planes[0].update(padded(self.rows, frame.planes[0], WIDTH))
        for plane in frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts, frame.time_base = self.sent * 90000 // RATE, Fraction(1, 90000)
        self.sent += 1
        return frame


class Tone(MediaStreamTrack):
    kind = "audio"
    samples = 960

    def __init__(self):
        super().__init__()
        self.sent = 0
        self.began = time.monotonic()

    async def recv(self):
        await asyncio.sleep(max(0, self.began + self.sent / 50 - time.monotonic()))
        frame = AudioFrame(format="s16", layout="mono", samples=self.samples)
        first = self.sent * self.samples
        wave = (math.sin(2 * math.pi * TONE_HZ * (first + n) / 48000) for n in range(self.samples))
        frame.planes[0].update(b"".join(int(v * 16000).to_bytes(2, "little", signed=True) for v in wave))
        frame.pts, frame.sample_rate, frame.time_base = first, 48000, Fraction(1, 48000)
        self.sent += 1
        return frame


class Api:
    def __init__(self, origin):
        self.base = f"{origin}/v1/apps/{APP}"

    async def ask(self, method, path, body=None):
        return await asyncio.to_thread(self._ask, method, path, body)

    def _ask(self, method, path, body):
        data = json.dumps(body).encode() if body is not None else b""
        headers = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    async def session(self):
        return (await self.ask("POST", "/sessions/new"))["sessionId"]


class Watcher:
    """Counts and measures what arrives on one track."""

    def __init__(self, track):
        self.kind = track.kind
        self.frames = 0
        self.good = 0
        self.said = ""
        self.task = asyncio.ensure_future(self.watch(track))

    async def watch(self, track):
        while True:
            frame = await track.recv()
            self.frames += 1
            self.good += self.looks_right(frame) if self.kind == "video" else self.sounds_right(frame)

    def looks_right(self, frame):
        plane = frame.planes[0]
        rows = bytes(plane)
        line = rows[frame.height // 2 * plane.line_size :][: frame.width]
        left, right = mean(line[: frame.width * 3 // 8]), mean(line[frame.width * 5 // 8 :])
        self.said = f"{frame.width}x{frame.height}, brightness {left:.0f} and {right:.0f}"
        return abs(left - LEFT) < 15 and abs(right - RIGHT) < 15

    def sounds_right(self, frame):
        channels = len(frame.layout.channels)
        data = memoryview(bytes(frame.planes[0])[: frame.samples * channels * 2]).cast("h")[::channels]
        crossings = sum((a < 0) != (b < 0) for a, b in zip(data, data[1:]))
        pitch = crossings / 2 / (len(data) / frame.sample_rate)
        self.said = f"{frame.sample_rate} Hz, {channels} channels, a tone of {pitch:.0f} Hz"
        # A frame of 20 ms holds 8.8 periods: a crossing more or less is 25 Hz.
        return abs(pitch - TONE_HZ) < 60


async def publish(api, codec):
    """Case A: the client offers what it sends."""
    session = await api.session()
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    names = {}
    for name, track in {"cam": Picture(), "mic": Tone()}.items():
        sender = peer.addTrack(track)
        transceiver = next(t for t in peer.getTransceivers() if t.sender is sender)
        transceiver.direction = "sendonly"
        if track.kind == "video":
            codecs = RTCRtpSender.getCapabilities("video").codecs
            transceiver.setCodecPreferences([c for c in codecs if c.name in (codec, "rtx")])
        names[name] = transceiver
    await peer.setLocalDescription(await peer.createOffer())
    tracks = [{"location": "local", "mid": t.mid, "trackName": n} for n, t in names.items()]
    reply = await api.ask("POST", f"/sessions/{session}/tracks/new", {
        "sessionDescription": said(peer.localDescription), "tracks": tracks,
    })
    assert not any(track.get("errorCode") for track in reply["tracks"]), reply
    await peer.setRemoteDescription(RTCSessionDescription(**reply["sessionDescription"]))
    await connected(peer)
    return peer, session


async def pull(api, publisher):
    """Case D: the node offers what was asked for."""
    session = await api.session()
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    watchers = {}
    peer.on("track", lambda track: watchers.update({track.kind: Watcher(track)}))
    wanted = [{"location": "remote", "sessionId": publisher, "trackName": n} for n in ("cam", "mic")]
    reply = await api.ask("POST", f"/sessions/{session}/tracks/new", {"tracks": wanted})
    assert reply["requiresImmediateRenegotiation"], reply
    assert not any(track.get("errorCode") for track in reply["tracks"]), reply
    await peer.setRemoteDescription(RTCSessionDescription(**reply["sessionDescription"]))
    await peer.setLocalDescription(await peer.createAnswer())
    await api.ask("PUT", f"/sessions/{session}/renegotiate", {
        "sessionDescription": said(peer.localDescription),
    })
    await connected(peer)
    return peer, watchers


async def connected(peer):
    for _ in range(200):
        if peer.connectionState == "connected":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no connection within 10 s: {peer.connectionState}")


async def media_is_published_and_pulled_back(api, codec):
    sender, session = await publish(api, codec)
    receiver, watchers = await pull(api, session)
    try:
        await settled(watchers)
        before = {kind: watcher.frames for kind, watcher in watchers.items()}
        await asyncio.sleep(WATCH_SECONDS)
        for kind, rate in {"video": RATE, "audio": 50}.items():
            watcher = watchers[kind]
            frames = watcher.frames - before[kind]
            print(f"      {kind}: {frames} frames in {WATCH_SECONDS} s, {watcher.said}")
            assert frames > 0.7 * rate * WATCH_SECONDS, f"{frames} frames of {kind}"
            assert watcher.good > 0.9 * watcher.frames, f"{watcher.good} of {watcher.frames} are right"
    finally:
        for watcher in watchers.values():
            watcher.task.cancel()
        await receiver.close()
        await sender.close()


async def settled(watchers):
    """Both kinds have begun."""
    for _ in range(100):
        if len(watchers) == 2 and all(watcher.frames > 5 for watcher in watchers.values()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"after 10 s: { {kind: w.frames for kind, w in watchers.items()} }")


async def a_goodbye_ends_the_session(api, codec):
    sender, session = await publish(api, codec)
    await asyncio.sleep(0.5)
    await sender.close()
    for _ in range(50):
        try:
            state = await api.ask("GET", f"/sessions/{session}")
        except AssertionError as error:
            assert ": 410 " in str(error) or ": 404 " in str(error), error
            return
        if all(track.get("status") != "active" for track in state["tracks"]):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"5 s after its close_notify: {state}")


def said(description):
    return {"type": description.type, "sdp": description.sdp}


def padded(rows, plane, width):
    if plane.line_size == width:
        return rows
    gap = bytes(plane.line_size - width)
    return b"".join(rows[at : at + width] + gap for at in range(0, len(rows), width))


def mean(values):
    return sum(values) / len(values)


def start(binary, log):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        http = f"127.0.0.1:{probe.getsockname()[1]}"
    args = ["--http", http, "--shards", "2", "--app", f"{APP}:{SECRET}", "--log", "debug"]
    server = subprocess.Popen([binary, *args], stdout=log, stderr=log)
    for _ in range(150):
        assert server.poll() is None, f"the server ended with {server.returncode}"
        try:
            host, port = http.split(":")
            socket.create_connection((host, int(port)), 1).close()
            return server, Api(f"http://{http}")
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


async def run(api, server):
    failed = 0
    for test in (media_is_published_and_pulled_back, a_goodbye_ends_the_session):
        for codec in ("VP8", "H264"):
            name = f"aiortc: {test.__name__.replace('_', ' ')} ({codec})"
            began = time.monotonic()
            try:
                await asyncio.wait_for(test(api, codec), 60)
                assert server.poll() is None, f"the server ended with {server.returncode}"
                print(f"  ✓ {name} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception as error:  # Whatever it is, the other tests run all the same.
                failed += 1
                print(f"  ✗ {name}: {error!r}", flush=True)
    return failed


def main():
    binary, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "peers.log", "w") as log:
        server, api = start(binary, log)
        try:
            failed = asyncio.run(run(api, server))
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
    if failed:
        print("\n".join((out / "peers.log").read_text().splitlines()[-40:]))
    sys.exit(1 if failed else 0)


main()
