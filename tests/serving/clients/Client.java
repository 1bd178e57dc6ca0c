// Client URL COUNT: Java's HttpClient asks so many times without waiting, and keeps connections.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.concurrent.CompletableFuture;

public class Client {
    public static void main(String[] args) {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var request = HttpRequest.newBuilder(URI.create(args[0])).build();
        var answers = new ArrayList<CompletableFuture<String>>();
        for (int i = 0; i < Integer.parseInt(args[1]); i++) {
            answers.add(client.sendAsync(request, BodyHandlers.ofString()).thenApply(a -> a.body()));
        }
        for (var answer : answers) {
            System.out.print(answer.join());
        }
    }
}
