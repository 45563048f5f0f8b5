// SPDX-License-Identifier: Apache-2.0
import com.sun.net.httpserver.HttpServer;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.StandardSocketOptions;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;

// FastJava serve-http PORT | drive-http URL: HttpServer; HttpClient with keep-alive requests of random sizes for three seconds.
// FastJava serve-nio PORT | drive-nio HOST PORT: what fast_python.py does, over selectors.
// FastJava drive-socket HOST PORT: the same client with java.net.Socket, which blocks.
public final class FastJava {
  static final int MESSAGES = 150;
  static final int PAUSE_MS = 20;
  static final int LARGEST = 200 << 10;

  static final class Check {
    final MessageDigest digest;

    Check() throws Exception {
      digest = MessageDigest.getInstance("SHA-256");
    }

    void take(int number, byte[] got, byte[] sent) {
      if (!Arrays.equals(got, sent)) {
        throw new IllegalStateException("message " + number + ": " + got.length + " bytes instead of " + sent.length);
      }
      digest.update(got);
    }

    void report() {
      System.out.println(MESSAGES + " messages " + HexFormat.of().formatHex(digest.digest()));
    }
  }

  static byte[] body(Random random) {
    byte[] bytes = new byte[1 + random.nextInt(LARGEST)];
    random.nextBytes(bytes);
    return bytes;
  }

  static void serveHttp(int port) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
    server.createContext("/echo", exchange -> {
      byte[] bytes = exchange.getRequestBody().readAllBytes();
      exchange.sendResponseHeaders(200, bytes.length);
      exchange.getResponseBody().write(bytes);
      exchange.close();
    });
    server.start();
    System.out.println("ready");
  }

  static void driveHttp(String url) throws Exception {
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    Random random = new Random(1);
    Check check = new Check();
    for (int number = 0; number < MESSAGES; number++) {
      byte[] sent = body(random);
      HttpRequest request = HttpRequest.newBuilder(URI.create(url)).POST(BodyPublishers.ofByteArray(sent)).build();
      check.take(number, client.send(request, BodyHandlers.ofByteArray()).body(), sent);
      Thread.sleep(PAUSE_MS);
    }
    check.report();
  }

  // Runs a non-blocking channel as if it blocked: each call waits for its selector.
  static final class Peer {
    final SocketChannel channel;
    final Selector selector = Selector.open();
    final SelectionKey key;

    Peer(SocketChannel channel) throws IOException {
      this.channel = channel;
      channel.configureBlocking(false);
      key = channel.register(selector, 0);
    }

    void await(int operation) throws IOException {
      key.interestOps(operation);
      selector.select();
      selector.selectedKeys().clear();
    }

    void send(byte[] body) throws IOException {
      ByteBuffer frame = ByteBuffer.allocate(4 + body.length).putInt(body.length).put(body).flip();
      while (channel.write(frame) >= 0 && frame.hasRemaining()) {
        await(SelectionKey.OP_WRITE);
      }
    }

    // Fewer bytes than asked for: the end came.
    ByteBuffer read(int size) throws IOException {
      ByteBuffer bytes = ByteBuffer.allocate(size);
      while (bytes.hasRemaining()) {
        int count = channel.read(bytes);
        if (count < 0) {
          break;
        }
        if (count == 0) {
          await(SelectionKey.OP_READ);
        }
      }
      return bytes.flip();
    }

    // null: the end.
    byte[] receive() throws IOException {
      ByteBuffer head = read(4);
      return head.remaining() < 4 ? null : read(head.getInt()).array();
    }
  }

  static void echo(SocketChannel channel) {
    try (channel) {
      Peer peer = new Peer(channel);
      byte[] body;
      while ((body = peer.receive()) != null) {
        if (body.length == 0) {
          peer.key.cancel();
          peer.selector.selectNow();
          channel.setOption(StandardSocketOptions.SO_LINGER, 0);
          return;
        }
        peer.send(body);
      }
      peer.send("bye".getBytes());
      peer.key.cancel();
      peer.selector.selectNow();
    } catch (IOException problem) {
      throw new UncheckedIOException(problem);
    }
  }

  static void serveNio(int port) throws Exception {
    ServerSocketChannel listener = ServerSocketChannel.open().bind(new InetSocketAddress(port));
    System.out.println("ready");
    while (true) {
      SocketChannel channel = listener.accept();
      new Thread(() -> echo(channel)).start();
    }
  }

  interface Call {
    Object run() throws IOException;
  }

  static String said(Call call) {
    try {
      return String.valueOf(call.run());
    } catch (IOException problem) {
      return problem.getMessage();
    }
  }

  static void driveNio(String host, int port) throws Exception {
    Peer[] pair = new Peer[2];
    for (int i = 0; i < pair.length; i++) {
      pair[i] = new Peer(SocketChannel.open(new InetSocketAddress(host, port)));
    }
    Random random = new Random(1);
    Check check = new Check();
    for (int number = 0; number < MESSAGES; number++) {
      Peer peer = pair[number % 2];
      byte[] sent = body(random);
      peer.send(sent);
      check.take(number, peer.receive(), sent);
      Thread.sleep(PAUSE_MS);
    }
    check.report();
    ByteBuffer one = ByteBuffer.allocate(1);
    pair[0].send(new byte[0]);
    System.out.println("reset: " + said(() -> pair[0].read(1)) + ", " + said(() -> pair[0].channel.write(one)));
    pair[1].channel.shutdownOutput();
    System.out.println("half-close: " + said(() -> new String(pair[1].receive())) + ", " + said(() -> pair[1].read(1).remaining()));
  }

  static byte[] receive(Socket socket) throws IOException {
    DataInputStream in = new DataInputStream(socket.getInputStream());
    return in.readNBytes(in.readInt());
  }

  static void send(Socket socket, byte[] body) throws IOException {
    DataOutputStream out = new DataOutputStream(socket.getOutputStream());
    out.write(ByteBuffer.allocate(4 + body.length).putInt(body.length).put(body).array());
  }

  static void driveSocket(String host, int port) throws Exception {
    Socket[] pair = {new Socket(host, port), new Socket(host, port)};
    Random random = new Random(1);
    Check check = new Check();
    for (int number = 0; number < MESSAGES; number++) {
      Socket socket = pair[number % 2];
      byte[] sent = body(random);
      send(socket, sent);
      check.take(number, receive(socket), sent);
      Thread.sleep(PAUSE_MS);
    }
    check.report();
    send(pair[0], new byte[0]);
    System.out.println("reset: " + said(() -> pair[0].getInputStream().read()));
    pair[1].shutdownOutput();
    System.out.println("half-close: " + said(() -> new String(receive(pair[1]))) + ", " + said(() -> pair[1].getInputStream().read()));
  }

  public static void main(String[] arguments) throws Exception {
    switch (arguments[0]) {
      case "serve-http" -> serveHttp(Integer.parseInt(arguments[1]));
      case "drive-http" -> driveHttp(arguments[1]);
      case "serve-nio" -> serveNio(Integer.parseInt(arguments[1]));
      case "drive-socket" -> driveSocket(arguments[1], Integer.parseInt(arguments[2]));
      default -> driveNio(arguments[1], Integer.parseInt(arguments[2]));
    }
    if (arguments[0].startsWith("drive")) {
      System.exit(0);
    }
  }
}
