// The agent API from Java with HttpClient. `openbox-sidecar run -- java examples/OpenBox.java`
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

public class OpenBox {
    // Without a proxy: the sidecar is not asked through itself.
    static final HttpClient client = HttpClient.newBuilder().proxy(HttpClient.Builder.NO_PROXY).build();

    // From the environment or, in a pod, from a file that is shared.
    static String token() throws Exception {
        String token = System.getenv("OPENBOX_SIDECAR_TOKEN");
        return token != null ? token : Files.readString(Path.of(System.getenv("OPENBOX_SIDECAR_TOKEN_FILE"))).strip();
    }

    static <T> HttpResponse<T> call(String method, String path, String json, HttpResponse.BodyHandler<T> read) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("OPENBOX_SIDECAR_URL") + path))
            .header("Authorization", "Bearer " + token())
            .method(method, json.isEmpty() ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(json)).build();
        return client.send(request, read);
    }

    static String ask(String path, String json) throws Exception {
        HttpResponse<String> answer;
        do { // 202: a person must decide, and the same request waits on
            answer = call("POST", path, json, HttpResponse.BodyHandlers.ofString());
        } while (answer.statusCode() == 202);
        boolean allowed = answer.body().contains("\"verdict\":\"allow\"") || answer.body().contains("\"verdict\":\"constrain\"");
        if (answer.statusCode() != 200 || !allowed) throw new SecurityException(answer.body());
        return answer.body();
    }

    // Any request at all, a line each: METHOD PATH JSON.
    static void each(BufferedReader lines) throws Exception {
        for (String line; (line = lines.readLine()) != null;) {
            String[] words = (line + "  ").split(" ", 3);
            HttpResponse<InputStream> answer = call(words[0], words[1], words[2].strip(), HttpResponse.BodyHandlers.ofInputStream());
            boolean ends = !answer.headers().firstValue("content-type").orElse("").startsWith("text/event-stream");
            try (BufferedReader text = new BufferedReader(new InputStreamReader(answer.body(), StandardCharsets.UTF_8))) {
                String first = ends ? text.readLine() : "";
                System.out.println(answer.statusCode() + " " + (first == null ? "" : first));
            }
        }
    }

    public static void main(String[] args) throws Exception {
        if (args.length > 0 && args[0].equals("-")) {
            each(new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)));
            return;
        }
        long id = ProcessHandle.current().pid();
        String run = "\"workflow_id\":\"java\",\"run_id\":\"" + id + "\"";
        ask("/v1/workflows", "{" + run + "}");
        ask("/v1/activities?wait=55s", "{" + run + ",\"activity_id\":\"a1\",\"activity_type\":\"refund\",\"input\":[{\"amount\":90}]}");
        ask("/v1/activities/a1/complete", "{" + run + ",\"output\":{\"refunded\":90}}");
        ask("/v1/workflows/java/runs/" + id + "/complete", "{}");
        System.out.println("done");
    }
}
