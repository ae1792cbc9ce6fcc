-- The schema dbos at version 123, so that programs of DBOS Transact and this one can share it.
--
-- Where it exists at this version or a later one it is used as it is: its owner looks after it. One
-- of an earlier version is refused, for only its owner knows how to bring it up.
-- Times are milliseconds since 1970, UTC.
DO $migration$
DECLARE
    have bigint;
BEGIN
    IF to_regclass('dbos.dbos_migrations') IS NOT NULL THEN
        SELECT max(version) INTO have FROM dbos.dbos_migrations;
    END IF;
    IF have >= 123 THEN
        RETURN;
    END IF;
    IF have IS NOT NULL OR to_regclass('dbos.workflow_status') IS NOT NULL THEN
        RAISE EXCEPTION 'the schema dbos in this database is of version %, and 123 is needed: bring it up with a DBOS SDK (5.3 or later), or use another database', coalesce(have::text, 'unknown')
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF to_regnamespace('dbos') IS NULL THEN
        CREATE SCHEMA dbos;
    END IF;

    CREATE TABLE IF NOT EXISTS dbos.dbos_migrations (version bigint PRIMARY KEY);
    INSERT INTO dbos.dbos_migrations (version) VALUES (123);

    -- Workflows
    CREATE TABLE dbos.workflow_status (
        workflow_uuid text PRIMARY KEY,
        status text,
        name text,
        authenticated_user text,
        assumed_role text,
        authenticated_roles text,          -- a JSON array
        request text,
        output text,                       -- beside workflow_output, for SDKs before 5.0
        error text,
        executor_id text,
        created_at bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        updated_at bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        application_version text,          -- NULL: any may run it
        application_id text,
        class_name varchar(255) DEFAULT NULL,
        config_name varchar(255) DEFAULT NULL,
        recovery_attempts bigint DEFAULT 0, -- how often it was started
        queue_name text,
        workflow_timeout_ms bigint,
        workflow_deadline_epoch_ms bigint,
        inputs text,                       -- of SDKs before 5.0; see workflow_input
        started_at_epoch_ms bigint,
        deduplication_id text,
        priority int NOT NULL DEFAULT 0,   -- lower runs first
        queue_partition_key text,
        forked_from text,
        owner_xid text,                    -- token of the execution that owns the run
        parent_workflow_id text,
        serialization text,
        delay_until_epoch_ms bigint,
        was_forked_from boolean NOT NULL DEFAULT false,
        rate_limited boolean NOT NULL DEFAULT false,
        completed_at bigint,
        attributes jsonb,
        schedule_name text,
        debounce_deadline_epoch_ms bigint,
        is_debounced boolean NOT NULL DEFAULT false,
        application_name text,             -- NULL: nobody's yet
        creator_xid text                   -- token of who inserted the row
    );
    CREATE INDEX workflow_status_created_at_index ON dbos.workflow_status (created_at);
    CREATE INDEX idx_workflow_status_pending ON dbos.workflow_status (created_at)
        WHERE status = 'PENDING';
    CREATE INDEX idx_workflow_status_failed ON dbos.workflow_status (status, created_at)
        WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
    CREATE INDEX idx_workflow_status_in_flight_v2
        ON dbos.workflow_status (queue_name, status, priority, created_at)
        INCLUDE (application_name) WHERE status IN ('ENQUEUED', 'PENDING');
    CREATE INDEX idx_workflow_status_partition_dequeue_v3
        ON dbos.workflow_status (queue_name, status, queue_partition_key, priority, created_at,
                                 workflow_uuid)
        INCLUDE (application_name)
        WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;
    CREATE INDEX idx_workflow_status_rate_limited
        ON dbos.workflow_status (queue_name, started_at_epoch_ms) WHERE rate_limited = true;
    CREATE INDEX idx_workflow_status_delayed ON dbos.workflow_status (delay_until_epoch_ms)
        WHERE status = 'DELAYED';
    CREATE INDEX idx_workflow_status_deadline ON dbos.workflow_status (workflow_deadline_epoch_ms)
        WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')
            AND workflow_deadline_epoch_ms IS NOT NULL;
    CREATE INDEX idx_workflow_status_started_at ON dbos.workflow_status (started_at_epoch_ms)
        WHERE started_at_epoch_ms IS NOT NULL;
    CREATE INDEX idx_workflow_status_completed_at ON dbos.workflow_status (completed_at)
        WHERE completed_at IS NOT NULL;
    CREATE INDEX idx_workflow_status_forked_from ON dbos.workflow_status (forked_from)
        WHERE forked_from IS NOT NULL;
    CREATE INDEX idx_workflow_status_parent_workflow_id
        ON dbos.workflow_status (parent_workflow_id) WHERE parent_workflow_id IS NOT NULL;
    CREATE INDEX idx_workflow_status_schedule_name ON dbos.workflow_status (schedule_name)
        WHERE schedule_name IS NOT NULL;
    CREATE INDEX idx_workflow_status_attributes ON dbos.workflow_status USING gin (attributes)
        WHERE attributes IS NOT NULL;
    CREATE UNIQUE INDEX uq_workflow_status_dedup_id
        ON dbos.workflow_status (queue_name, deduplication_id) WHERE deduplication_id IS NOT NULL;

    -- What went in and came out; without foreign keys, so who deletes a workflow deletes these
    CREATE TABLE dbos.workflow_input (
        workflow_uuid text PRIMARY KEY,
        inputs text,
        retention_timestamp bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint
    );
    CREATE INDEX idx_workflow_input_retention ON dbos.workflow_input (retention_timestamp);
    CREATE TABLE dbos.workflow_output (
        workflow_uuid text PRIMARY KEY,
        output text,
        error text,
        retention_timestamp bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint
    );
    CREATE INDEX idx_workflow_output_retention ON dbos.workflow_output (retention_timestamp);

    -- Checkpoints of steps
    CREATE TABLE dbos.operation_outputs (
        workflow_uuid text,
        function_id int,
        function_name text NOT NULL DEFAULT '',
        output text,
        error text,
        child_workflow_id text,
        started_at_epoch_ms bigint,
        completed_at_epoch_ms bigint,
        serialization text,
        application_name text,
        retention_timestamp bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        PRIMARY KEY (workflow_uuid, function_id)
    );
    CREATE INDEX idx_operation_outputs_completed_at_function_name_v2
        ON dbos.operation_outputs (completed_at_epoch_ms, function_name)
        INCLUDE (application_name);
    CREATE INDEX idx_operation_outputs_retention ON dbos.operation_outputs (retention_timestamp);

    -- Messages, events, streams
    CREATE TABLE dbos.notifications (
        message_uuid text DEFAULT gen_random_uuid() PRIMARY KEY,
        destination_uuid text NOT NULL REFERENCES dbos.workflow_status (workflow_uuid)
            ON UPDATE CASCADE ON DELETE CASCADE,
        topic text,
        message text NOT NULL,
        created_at_epoch_ms bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        serialization text,
        consumed boolean NOT NULL DEFAULT false,
        consumed_by_function_id int
    );
    CREATE INDEX idx_workflow_topic ON dbos.notifications (destination_uuid, topic);
    CREATE TABLE dbos.workflow_events (
        workflow_uuid text REFERENCES dbos.workflow_status (workflow_uuid)
            ON UPDATE CASCADE ON DELETE CASCADE,
        key text,
        value text NOT NULL,
        serialization text,
        PRIMARY KEY (workflow_uuid, key)
    );
    CREATE TABLE dbos.workflow_events_history (
        workflow_uuid text REFERENCES dbos.workflow_status (workflow_uuid)
            ON UPDATE CASCADE ON DELETE CASCADE,
        function_id int,
        key text,
        value text NOT NULL,
        serialization text,
        PRIMARY KEY (workflow_uuid, function_id, key)
    );
    CREATE TABLE dbos.streams (
        workflow_uuid text REFERENCES dbos.workflow_status (workflow_uuid)
            ON UPDATE CASCADE ON DELETE CASCADE,
        key text,
        value text NOT NULL,
        "offset" int,
        function_id int NOT NULL DEFAULT 0,
        serialization text,
        PRIMARY KEY (workflow_uuid, key, "offset")
    );

    -- Schedules, queues, versions
    CREATE TABLE dbos.workflow_schedules (
        schedule_id text PRIMARY KEY,
        schedule_name text NOT NULL UNIQUE,
        workflow_name text NOT NULL,
        workflow_class_name text,
        schedule text NOT NULL,
        status text NOT NULL DEFAULT 'ACTIVE',
        context text NOT NULL,
        last_fired_at text,
        automatic_backfill boolean NOT NULL DEFAULT false,
        cron_timezone text,
        queue_name text,
        application_name text
    );
    CREATE TABLE dbos.queues (
        queue_id text DEFAULT gen_random_uuid()::text PRIMARY KEY,
        name text NOT NULL UNIQUE,
        concurrency int,
        worker_concurrency int,
        rate_limit_max int,
        rate_limit_period_sec double precision,
        priority_enabled boolean NOT NULL DEFAULT false,
        partition_queue boolean NOT NULL DEFAULT false,
        polling_interval_sec double precision NOT NULL DEFAULT 1.0,
        created_at bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        updated_at bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        application_name text,
        partition_concurrency int,
        partition_worker_concurrency int,
        partition_rate_limit_max int,
        partition_rate_limit_period_sec double precision
    );
    CREATE TABLE dbos.application_versions (
        version_id text PRIMARY KEY,
        version_name text NOT NULL UNIQUE,
        version_timestamp bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        created_at bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000.0)::bigint,
        application_name text
    );
    CREATE UNIQUE INDEX uq_application_versions_owner_version
        ON dbos.application_versions (application_name, version_name)
        WHERE application_name IS NOT NULL;
    CREATE UNIQUE INDEX uq_application_versions_unclaimed_version
        ON dbos.application_versions (version_name) WHERE application_name IS NULL;
    CREATE TABLE dbos.event_dispatch_kv ( -- of event receivers in SDKs; not used here
        service_name text,
        workflow_fn_name text,
        key text,
        value text,
        update_seq numeric(38, 0),
        update_time numeric(38, 15),
        PRIMARY KEY (service_name, workflow_fn_name, key)
    );

    -- A message tells who listens. A payload longer than NOTIFY takes must not keep it out.
    CREATE FUNCTION dbos.notifications_function() RETURNS trigger LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp' AS $body$
    BEGIN
        IF octet_length(NEW.destination_uuid) + coalesce(octet_length(NEW.topic), 0) < 7900 THEN
            PERFORM pg_notify('dbos_notifications_channel',
                              NEW.destination_uuid || '::' || NEW.topic);
        END IF;
        RETURN NULL;
    END
    $body$;
    CREATE TRIGGER dbos_notifications_trigger AFTER INSERT ON dbos.notifications
        FOR EACH ROW EXECUTE FUNCTION dbos.notifications_function();

    -- For SQL clients: start a workflow. An id that exists stays what it is.
    CREATE FUNCTION dbos.enqueue_workflow(
        workflow_name text, queue_name text, positional_args json[] DEFAULT ARRAY[]::json[],
        named_args json DEFAULT '{}'::json, class_name text DEFAULT NULL::text,
        config_name text DEFAULT NULL::text, workflow_id text DEFAULT NULL::text,
        app_version text DEFAULT NULL::text, timeout_ms bigint DEFAULT NULL::bigint,
        deadline_epoch_ms bigint DEFAULT NULL::bigint, deduplication_id text DEFAULT NULL::text,
        priority int DEFAULT NULL::int, queue_partition_key text DEFAULT NULL::text,
        authenticated_user text DEFAULT NULL::text, authenticated_roles text DEFAULT NULL::text,
        delay_until_epoch_ms bigint DEFAULT NULL::bigint,
        application_name text DEFAULT NULL::text)
    RETURNS text LANGUAGE plpgsql SET search_path TO 'pg_catalog', 'pg_temp' AS $body$
    DECLARE
        id text := coalesce(workflow_id, gen_random_uuid()::text);
        token text := gen_random_uuid()::text;
        stored text;
        now_ms bigint := extract(epoch FROM now()) * 1000;
    BEGIN
        IF coalesce(workflow_name, '') = '' THEN
            RAISE EXCEPTION 'a workflow name is needed, neither NULL nor empty';
        ELSIF coalesce(queue_name, '') = '' THEN
            RAISE EXCEPTION 'a queue name is needed, neither NULL nor empty';
        ELSIF json_typeof(named_args) <> 'object' THEN
            RAISE EXCEPTION 'the named arguments must be a JSON object';
        ELSIF workflow_id = '' THEN
            RAISE EXCEPTION 'a workflow id must not be empty';
        ELSIF delay_until_epoch_ms < 0 THEN
            RAISE EXCEPTION 'delay_until_epoch_ms must not be negative';
        END IF;

        INSERT INTO dbos.workflow_status AS w
            (workflow_uuid, status, name, class_name, config_name, queue_name, deduplication_id,
             priority, queue_partition_key, application_version, created_at, updated_at,
             recovery_attempts, workflow_timeout_ms, workflow_deadline_epoch_ms, owner_xid,
             serialization, authenticated_user, authenticated_roles, delay_until_epoch_ms,
             application_name)
        VALUES
            (id, CASE WHEN delay_until_epoch_ms IS NULL THEN 'ENQUEUED' ELSE 'DELAYED' END,
             workflow_name, class_name, config_name, queue_name, deduplication_id,
             coalesce(priority, 0), queue_partition_key, app_version, now_ms, now_ms,
             0, timeout_ms, deadline_epoch_ms, token,
             'portable_json', authenticated_user, authenticated_roles, delay_until_epoch_ms,
             application_name)
        ON CONFLICT (workflow_uuid) DO UPDATE SET updated_at = EXCLUDED.updated_at
        RETURNING w.owner_xid INTO stored;

        IF stored = token THEN -- the row is new
            INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp)
            VALUES (id, json_build_object('positionalArgs', positional_args,
                                          'namedArgs', named_args)::text, now_ms)
            ON CONFLICT (workflow_uuid) DO NOTHING;
        END IF;
        RETURN id;
    EXCEPTION WHEN unique_violation THEN
        RAISE EXCEPTION 'DBOS queue duplicated' USING ERRCODE = 'unique_violation',
            DETAIL = format('workflow %s: queue %s has one with deduplication id %s already',
                            id, queue_name, deduplication_id);
    END
    $body$;

    -- For SQL clients: put a message into a workflow's mailbox. A message_id counts once.
    CREATE FUNCTION dbos.send_message(
        destination_id text, message json, topic text DEFAULT NULL::text,
        message_id text DEFAULT NULL::text)
    RETURNS void LANGUAGE plpgsql SET search_path TO 'pg_catalog', 'pg_temp' AS $body$
    BEGIN
        INSERT INTO dbos.notifications
            (message_uuid, destination_uuid, topic, message, serialization)
        VALUES
            (coalesce(message_id, gen_random_uuid()::text), destination_id,
             coalesce(topic, '__null__topic__'), message::text, 'portable_json')
        ON CONFLICT (message_uuid) DO NOTHING;
    EXCEPTION WHEN foreign_key_violation THEN
        RAISE EXCEPTION 'DBOS non-existent workflow' USING ERRCODE = 'foreign_key_violation',
            DETAIL = format('there is no workflow %s to send to', destination_id);
    END
    $body$;
END
$migration$;
