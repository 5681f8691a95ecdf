import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.pulsar.client.impl.Murmur3Hash32;

/** Prints, for each id (UTF-8 in Base64) among the arguments, what Pulsar's Java client hashes it to. */
public class Route {
    public static void main(String[] ids) {
        for (String id : ids) {
            String text = new String(Base64.getDecoder().decode(id), StandardCharsets.UTF_8);
            System.out.println(Murmur3Hash32.getInstance().makeHash(text));
        }
    }
}
