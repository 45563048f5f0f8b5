// SPDX-License-Identifier: Apache-2.0
// JavaClient V4 V6: java.net.http, blocking and asynchronous, against nginx, then against the servers of probe_server.py that fail.
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;

public class JavaClient {
  static String sha256(byte[] data) throws Exception {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
  }

  static HttpRequest.Builder request(String host, String path) {
    String shown = host.contains(":") ? "[" + host + "]" : host;
    return HttpRequest.newBuilder(URI.create("http://" + shown + ":8080" + path)).timeout(Duration.ofSeconds(30));
  }

  static void faults(String host) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    for (String[] fault : new String[][] {{"reset", "7211"}, {"cut", "7212"}, {"refused", "9"}}) {
      HttpRequest asked = HttpRequest.newBuilder(URI.create("http://" + host + ":" + fault[1] + "/")).timeout(Duration.ofSeconds(30)).build();
      try {
        System.out.println(fault[0] + " " + client.send(asked, HttpResponse.BodyHandlers.ofByteArray()).body().length);
      } catch (IOException error) {
        Throwable cause = error;
        for (; cause.getCause() != null; cause = cause.getCause()) {
        }
        System.out.println(fault[0] + " " + error + ", by " + cause);
      }
    }
  }

  public static void main(String[] hosts) throws Exception {
    byte[] body = new byte[20_000_000];
    Arrays.fill(body, (byte) 'j');
    for (String host : hosts) {
      HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(10)).build();
      for (int i = 0; i < 5; ++i) {
        HttpResponse<byte[]> answer = client.send(request(host, "/data").build(), HttpResponse.BodyHandlers.ofByteArray());
        System.out.println("get " + answer.statusCode() + " " + sha256(answer.body()));
      }
      List<CompletableFuture<HttpResponse<byte[]>>> many = new ArrayList<>();
      for (int i = 0; i < 10; ++i) {
        many.add(client.sendAsync(request(host, "/data").build(), HttpResponse.BodyHandlers.ofByteArray()));
      }
      for (CompletableFuture<HttpResponse<byte[]>> answer : many) {
        System.out.println("async " + answer.get().statusCode() + " " + sha256(answer.get().body()));
      }
      HttpResponse<String> put = client.send(
          request(host, "/upload/java").PUT(HttpRequest.BodyPublishers.ofByteArray(body)).build(),
          HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
      System.out.println("put " + put.statusCode() / 100);
      HttpResponse<byte[]> got = client.send(request(host, "/upload/java").build(), HttpResponse.BodyHandlers.ofByteArray());
      System.out.println("got " + got.statusCode() + " " + sha256(got.body()) + " " + sha256(body));
    }
    faults(hosts[0]);
  }
}
