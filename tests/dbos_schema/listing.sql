-- What the schema dbos is made of, one line each, in an order of its own: columns with their types,
-- defaults and nullability, constraints, indexes, functions as they are called, triggers.
SELECT line FROM (
SELECT format('%s.%s %s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' NOT NULL' END,
              ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'dbos'::regnamespace AND c.relkind = 'r'
UNION ALL
SELECT format('%s CONSTRAINT %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE connamespace = 'dbos'::regnamespace AND contype <> 'n'
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname = 'dbos'
UNION ALL
SELECT format('FUNCTION %s(%s) RETURNS %s %s', proname, pg_get_function_arguments(oid),
              pg_get_function_result(oid), proconfig)
FROM pg_proc WHERE pronamespace = 'dbos'::regnamespace
UNION ALL
SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'dbos'::regnamespace AND NOT t.tgisinternal
UNION ALL
SELECT 'version ' || version FROM dbos.dbos_migrations
) AS lines (line)
ORDER BY line COLLATE "C";
