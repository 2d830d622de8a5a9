import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Threads are blocked in read and write on connections that other threads of their JVM close, or that it closes because they are interrupted: the JDK puts
 * another socket in place of the descriptor and signals whoever is in a call. Each must come back, with the exception that the JDK's documentation
 * names; what was written before arrives at the other end, and then the end.
 *
 *     serve SOCKET
 *     check SOCKET LANES ROUNDS
 */
public class Evictions {
    /** Who is blocked, and in what. The other end reads until the end; beside a victim that echoes it echoes. */
    enum Kind { CLIENT_READS, CLIENT_WRITES, CLIENT_ECHOES, SERVER_READS, SERVER_WRITES, ASK }

    static final int WARM_UP = 12; // echoes, so that the connection is where it is going to be
    static final long PROBLEMS = -1; // asked for in place of a connection: how many problems the server has had
    static final int SHORT = 100, LONG = 100_000; // bytes of a message

    final List<String> problems = new CopyOnWriteArrayList<>();
    final AtomicInteger blocked = new AtomicInteger(), living = new AtomicInteger();
    final Map<Long, CompletableFuture<Long>> moved = new ConcurrentHashMap<>(); // by connection: what this end has written, or read

    /** Byte `at` of what a victim writes. */
    static byte pattern(long at) {
        return (byte) (at * 31 >> 3);
    }

    static void readFully(SocketChannel channel, ByteBuffer into) throws IOException {
        while (into.hasRemaining()) {
            if (channel.read(into) < 0) throw new EOFException();
        }
        into.flip();
    }

    static void exchange(SocketChannel channel, int size, byte mark) throws IOException {
        ByteBuffer message = ByteBuffer.allocateDirect(size);
        while (message.hasRemaining()) message.put((byte) (mark + message.position()));
        message.flip();
        while (message.hasRemaining()) channel.write(message);
        ByteBuffer answer = ByteBuffer.allocateDirect(size);
        readFully(channel, answer);
        if (!answer.equals(message.flip())) throw new IllegalStateException("an echo differs");
    }

    /** Uses the channel until another thread ends that; returns the bytes written. */
    long victim(SocketChannel channel, Kind kind, boolean interrupted, Random random) throws InterruptedException {
        Thread self = Thread.currentThread();
        long delay = random.nextInt(3_000_000);
        Thread evictor = new Thread(() -> {
            try {
                TimeUnit.NANOSECONDS.sleep(delay);
                if (interrupted) {
                    self.interrupt();
                } else {
                    channel.close();
                }
            } catch (Exception problem) {
                problems.add("evictor: " + problem);
            }
        });
        evictor.start();
        long written = 0;
        try {
            ByteBuffer buffer = ByteBuffer.allocateDirect(LONG);
            for (int turn = 0;; turn++) {
                if (kind == Kind.CLIENT_ECHOES) {
                    exchange(channel, 1 + random.nextInt(LONG), (byte) turn);
                } else if (kind == Kind.CLIENT_READS || kind == Kind.SERVER_READS) {
                    int read = channel.read(buffer);
                    throw new IllegalStateException("read gave " + read);
                } else {
                    buffer.clear().limit(1 + random.nextInt(LONG));
                    for (int at = 0; at < buffer.limit(); at++) buffer.put(at, pattern(written + at));
                    while (buffer.hasRemaining()) written += channel.write(buffer);
                }
            }
        } catch (ClosedByInterruptException end) {
            if (!interrupted) problems.add(kind + ": closed, but " + end);
        } catch (AsynchronousCloseException end) {
            blocked.incrementAndGet();
            if (interrupted) problems.add(kind + ": interrupted, but " + end);
        } catch (ClosedChannelException end) { // it was between two calls
            if (interrupted) problems.add(kind + ": interrupted, but " + end);
        } catch (IOException | IllegalStateException end) {
            problems.add(kind + (interrupted ? ": interrupted, but " : ": closed, but ") + end);
        }
        Thread.interrupted(); // else join() would throw
        evictor.join();
        if (channel.isOpen()) problems.add(kind + ": the channel is still open");
        return written;
    }

    /** Reads to the end, which has to be a clean one, and returns the number of bytes. */
    long drain(SocketChannel channel, Kind kind) {
        long at = 0;
        ByteBuffer buffer = ByteBuffer.allocateDirect(LONG);
        try {
            while (channel.read(buffer.clear()) >= 0) {
                for (buffer.flip(); buffer.hasRemaining(); at++) {
                    if (buffer.get() != pattern(at)) {
                        problems.add(kind + ": byte " + at + " differs");
                        return -1;
                    }
                }
            }
        } catch (IOException problem) {
            problems.add(kind + ": after " + at + " bytes no end, but " + problem);
        }
        return at;
    }

    // The server.

    void echo(SocketChannel channel, int messages) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocateDirect(SHORT);
        for (int number = 0; number < messages; number++) {
            readFully(channel, buffer.clear());
            while (buffer.hasRemaining()) channel.write(buffer);
        }
    }

    void echoToTheEnd(SocketChannel channel) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(LONG);
        try {
            while (channel.read(buffer.clear()) >= 0) {
                for (buffer.flip(); buffer.hasRemaining(); ) channel.write(buffer);
            }
        } catch (IOException reset) { // the client may have gone away in front of an answer
        }
    }

    CompletableFuture<Long> result(long id) {
        return moved.computeIfAbsent(id, key -> new CompletableFuture<>());
    }

    void serve(SocketChannel channel) {
        living.incrementAndGet();
        try (channel) {
            ByteBuffer opening = ByteBuffer.allocate(10);
            if (channel.read(opening) < 0) return; // somebody who wanted to know whether we listen
            readFully(channel, opening);
            Kind kind = Kind.values()[opening.get()];
            boolean interrupted = opening.get() != 0;
            long id = opening.getLong();
            if (kind == Kind.ASK) {
                long answer = id == PROBLEMS ? problems.size() : result(id).get(20, TimeUnit.SECONDS);
                channel.write(ByteBuffer.allocate(8).putLong(answer).flip());
                return;
            }
            echo(channel, WARM_UP);
            switch (kind) {
                case CLIENT_ECHOES -> echoToTheEnd(channel);
                case CLIENT_READS, CLIENT_WRITES -> {
                    if (id % 2 == 0) Thread.sleep(id % 5); // so that the writer is blocked, in half of the rounds
                    result(id).complete(drain(channel, kind));
                }
                default -> result(id).complete(victim(channel, kind, interrupted, new Random(id)));
            }
        } catch (Exception problem) {
            problems.add("server: " + problem);
        } finally {
            living.decrementAndGet();
        }
    }

    void listen(String path) throws IOException {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            for (String problem : problems) System.err.println(problem);
            if (!problems.isEmpty() || living.get() != 0) System.err.println(living + " connections still served");
        }));
        ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        listener.bind(UnixDomainSocketAddress.of(path), 128);
        while (true) {
            SocketChannel channel = listener.accept();
            new Thread(() -> serve(channel)).start();
        }
    }

    // The client.

    static SocketChannel open(UnixDomainSocketAddress server, Kind kind, boolean interrupted, long id) throws IOException {
        SocketChannel channel = SocketChannel.open(server);
        channel.write(ByteBuffer.allocate(10).put((byte) kind.ordinal()).put((byte) (interrupted ? 1 : 0)).putLong(id).flip());
        return channel;
    }

    /** What the server's end of a connection has moved. */
    static long ask(UnixDomainSocketAddress server, long id) throws IOException {
        try (SocketChannel channel = open(server, Kind.ASK, false, id)) {
            ByteBuffer answer = ByteBuffer.allocate(8);
            readFully(channel, answer);
            return answer.getLong();
        }
    }

    void round(UnixDomainSocketAddress server, long id) throws Exception {
        Random random = new Random(-id);
        Kind kind = Kind.values()[(int) (id % Kind.ASK.ordinal())];
        boolean interrupted = random.nextInt(3) == 0;
        SocketChannel channel = open(server, kind, interrupted, id);
        for (int number = 0; number < WARM_UP; number++) exchange(channel, SHORT, (byte) number);
        long here;
        if (kind == Kind.SERVER_READS || kind == Kind.SERVER_WRITES) {
            if (id % 2 == 0) Thread.sleep(id % 5);
            here = drain(channel, kind);
            channel.close();
        } else {
            here = victim(channel, kind, interrupted, random);
        }
        if (kind == Kind.CLIENT_ECHOES) return;
        long there = ask(server, id);
        long lost = kind == Kind.CLIENT_WRITES ? here - there : there - here;
        // An interrupted write throws whatever it has written.
        if (lost > 0 || lost < (interrupted ? -LONG : 0)) {
            problems.add(kind + (interrupted ? ", interrupted: " : ", closed: ") + here + " bytes here, " + there + " at the other end");
        }
    }

    int check(UnixDomainSocketAddress server, int lanes, int rounds) throws Exception {
        AtomicInteger done = new AtomicInteger();
        Thread[] threads = new Thread[lanes];
        for (int lane = 0; lane < lanes; lane++) {
            long first = (long) lane * rounds;
            threads[lane] = new Thread(() -> {
                try {
                    for (long id = first; id < first + rounds; id++, done.incrementAndGet()) round(server, id);
                } catch (Exception problem) {
                    problems.add("client: " + problem);
                }
            });
            threads[lane].setDaemon(true);
            threads[lane].start();
        }
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(40);
        for (Thread thread : threads) thread.join(Math.max(1, TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime())));
        for (Thread thread : threads) {
            if (thread.isAlive()) problems.add("hangs: " + List.of(thread.getStackTrace()));
        }
        if (ask(server, PROBLEMS) != 0) problems.add("there were problems in the server, see its log");
        if (blocked.get() == 0) problems.add("no thread was in a call when its channel was closed");
        for (String problem : problems) System.out.println(problem);
        System.out.println(done + " rounds, " + problems.size() + " problems");
        return problems.isEmpty() ? 0 : 1;
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("serve")) {
            new Evictions().listen(args[1]);
        } else {
            System.exit(new Evictions().check(UnixDomainSocketAddress.of(args[1]), Integer.parseInt(args[2]), Integer.parseInt(args[3])));
        }
    }
}
