// The agent API from Java with HttpClient. `openbox-sidecar run -- java examples/OpenBox.java`
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
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

    static String ask(String path, String json) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("OPENBOX_SIDECAR_URL") + path))
            .header("Authorization", "Bearer " + token())
            .POST(HttpRequest.BodyPublishers.ofString(json)).build();
        HttpResponse<String> answer;
        do { // 202: a person must decide, and the same request waits on
            answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        } while (answer.statusCode() == 202);
        boolean allowed = answer.body().contains("\"verdict\":\"allow\"") || answer.body().contains("\"verdict\":\"constrain\"");
        if (answer.statusCode() != 200 || !allowed) throw new SecurityException(answer.body());
        return answer.body();
    }

    public static void main(String[] args) throws Exception {
        long id = ProcessHandle.current().pid();
        String run = "\"workflow_id\":\"java\",\"run_id\":\"" + id + "\"";
        ask("/v1/workflows", "{" + run + "}");
        ask("/v1/activities?wait=55s", "{" + run + ",\"activity_id\":\"a1\",\"activity_type\":\"refund\",\"input\":[{\"amount\":90}]}");
        ask("/v1/activities/a1/complete", "{" + run + ",\"output\":{\"refunded\":90}}");
        ask("/v1/workflows/java/runs/" + id + "/complete", "{}");
        System.out.println("done");
    }
}
