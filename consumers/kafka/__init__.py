"""What is of Kafka: topics, the relay, the feed, and a real broker for this machine."""
