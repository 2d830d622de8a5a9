import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** Sends back what it receives on the unix socket args[0], with one Selector, until SIGTERM. A connection's end is answered by its end. */
public class EchoServer {
    static final int MOST_UNSENT = 4 * 65536; // of a connection; then its bytes wait where they are

    private final SocketChannel channel;
    private final ByteBuffer unsent = ByteBuffer.allocateDirect(MOST_UNSENT);
    private boolean ended;

    EchoServer(SocketChannel channel) {
        this.channel = channel;
    }

    private void move(SelectionKey key) throws IOException {
        if (key.isReadable() && channel.read(unsent) < 0) ended = true;
        unsent.flip();
        channel.write(unsent);
        unsent.compact();
        int wanted = (!ended && unsent.hasRemaining() ? SelectionKey.OP_READ : 0) | (unsent.position() > 0 ? SelectionKey.OP_WRITE : 0);
        if (wanted == 0) {
            channel.close();
        } else {
            key.interestOps(wanted);
        }
    }

    public static void main(String[] args) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        listener.bind(UnixDomainSocketAddress.of(args[0]), 128);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel channel = listener.accept();
                    if (channel == null) continue;
                    channel.configureBlocking(false);
                    channel.register(selector, SelectionKey.OP_READ, new EchoServer(channel));
                } else {
                    ((EchoServer) key.attachment()).move(key);
                }
            }
            selector.selectedKeys().clear();
        }
    }
}
