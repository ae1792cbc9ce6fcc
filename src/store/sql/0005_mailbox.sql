-- A mailbox keeps what was consumed: this finds the oldest message that was not.
CREATE INDEX durable_unconsumed ON notifications (destination_uuid, topic, created_at_epoch_ms)
    WHERE consumed = FALSE;
