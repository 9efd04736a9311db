import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;

/** The application of `java`. */
public class Server {
    private static final Map<Integer, byte[]> KEPT = new ConcurrentHashMap<>();

    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> answer(exchange, "hello from java"));
        server.createContext("/garbage", exchange -> {
            ThreadLocalRandom random = ThreadLocalRandom.current();
            for (int i = 0; i < 96; i++) {
                KEPT.put(random.nextInt(96), new byte[64 << 10]);
            }
            answer(exchange, "kept " + KEPT.size());
        });
        server.createContext("/collections", exchange -> {
            long count = 0;
            for (var collector : ManagementFactory.getGarbageCollectorMXBeans()) {
                count += collector.getCollectionCount();
            }
            answer(exchange, "collections " + count);
        });
        server.createContext("/null", exchange -> {
            // The JVM makes the exception from a SIGSEGV once the method is compiled.
            int caught = 0;
            for (int i = 0; i < 20_000; i++) {
                try {
                    length(i % 4 == 0 ? null : "x");
                } catch (NullPointerException expected) {
                    caught++;
                }
            }
            answer(exchange, "caught " + caught);
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            server.stop(1);
            System.out.println("stopped");
        }));
        server.start();
        Runtime runtime = Runtime.getRuntime();
        System.out.println("listening, " + runtime.availableProcessors() + " processors");
    }

    private static int length(String text) {
        return text.length();
    }

    private static void answer(HttpExchange exchange, String text) throws IOException {
        byte[] bytes = (text + "\n").getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }
}
