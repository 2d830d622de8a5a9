"""Redis' protocol over a unix socket, read and written in the manners in which programs do."""
import errno
import select
import socket


class Ended(Exception):
    pass


class Wrong(Exception):
    pass


class Wire:
    """A RESP connection in one of three manners of reading and writing: blocking, timeout (poll), epoll."""

    def __init__(self, path, manner, rng):
        self.socket = socket.socket(socket.AF_UNIX)
        self.rng, self.manner, self.buffer, self.at = rng, manner, bytearray(), 0
        self.socket.connect(path)
        if manner == "timeout":
            self.socket.settimeout(30)
        elif manner == "epoll":
            self.socket.setblocking(False)
            self.poll = select.epoll()
            self.poll.register(self.socket, select.EPOLLIN)

    def send(self, data):
        """In pieces at random; a non-blocking connection reads while it cannot write."""
        view = memoryview(data)
        try:
            while view:
                piece = len(view) if self.rng.random() < 0.7 else self.rng.randint(1, len(view))
                if self.manner != "epoll":
                    self.socket.sendall(view[:piece])
                else:
                    piece = self._send_some(view[:piece])
                view = view[piece:]
        except OSError as problem:
            raise Ended(errno.errorcode.get(problem.errno, str(problem))) from None

    def _send_some(self, view):
        try:
            return self.socket.send(view)
        except BlockingIOError:
            self.poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)
            events = self.poll.poll(30)
            if not events:
                raise Wrong("neither readable nor writable for 30 s while sending") from None
            if events[0][1] & select.EPOLLIN:
                self._receive()
            self.poll.modify(self.socket, select.EPOLLIN)
            return 0

    def _receive(self):
        size = self.rng.choice((1, 7, 100, 4096, 16384, 65536, 1 << 20))
        data = self.socket.recv(size)
        if not data:
            raise Ended("EOF")
        self.buffer += data

    def _more(self):
        try:
            if self.manner == "epoll" and not self.poll.poll(30):
                raise Wrong("no answer within 30 s (epoll)")
            self._receive()
        except BlockingIOError:
            pass
        except TimeoutError:
            raise Wrong("no answer within 30 s (timeout)") from None
        except OSError as problem:
            raise Ended(errno.errorcode.get(problem.errno, str(problem))) from None

    def _take(self, count):
        while len(self.buffer) - self.at < count:
            self._more()
        data = bytes(self.buffer[self.at:self.at + count])
        self.at += count
        if self.at > 1 << 20:
            del self.buffer[:self.at]
            self.at = 0
        return data

    def _line(self):
        start = self.at
        while (end := self.buffer.find(b"\r\n", start)) < 0:
            start = max(self.at, len(self.buffer) - 1)
            self._more()
        return self._take(end + 2 - self.at)[:-2]

    def reply(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ("error", rest.split()[0])
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            data = self._take(int(rest) + 2)
            if data[-2:] != b"\r\n":
                raise Wrong(f"a value of {rest.decode()} bytes does not end in CR LF but in {data[-2:]!r}")
            return data[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise Wrong(f"not a reply: {line[:80]!r}")


def encode(words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)
