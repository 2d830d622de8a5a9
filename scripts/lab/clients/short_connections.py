"""short_connections.py server|client SOCKET COUNT: connect, one question, one answer, close, COUNT times over."""
import socket
import sys

role, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if role == "server":
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    for _ in range(count):
        connection, _ = listener.accept()
        connection.send(connection.recv(100))
        connection.close()
else:
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.send(b"question")
        assert connection.recv(100) == b"question"
        connection.close()
