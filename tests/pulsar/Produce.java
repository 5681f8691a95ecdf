import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.pulsar.client.api.HashingScheme;
import org.apache.pulsar.client.api.MessageIdAdv;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.Schema;

/** Arguments: service URL, topic, ids (UTF-8 in Base64). Sends a message for each, and prints the partition it is on. */
public class Produce {
    public static void main(String[] arguments) throws Exception {
        try (PulsarClient client = PulsarClient.builder().serviceUrl(arguments[0]).build();
                Producer<byte[]> producer = client.newProducer(Schema.AUTO_PRODUCE_BYTES())
                        .topic(arguments[1]).hashingScheme(HashingScheme.Murmur3_32Hash).create()) {
            for (int i = 2; i < arguments.length; i++) {
                String key = new String(Base64.getDecoder().decode(arguments[i]), StandardCharsets.UTF_8);
                var place = (MessageIdAdv) producer.newMessage().key(key).value(new byte[] {0}).send();
                System.out.println("partition " + place.getPartitionIndex());
            }
        }
    }
}
