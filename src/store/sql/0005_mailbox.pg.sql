-- A mailbox keeps what was consumed: this finds the oldest message that was not. Where the table
-- belongs to another role it is done without, which is slower and not wrong.
DO $migration$
BEGIN
    CREATE INDEX IF NOT EXISTS durable_unconsumed
        ON dbos.notifications (destination_uuid, topic, created_at_epoch_ms)
        WHERE consumed = FALSE;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$migration$;
