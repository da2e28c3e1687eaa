-- The functions of schema jobd that set limits, at run time and from what code and files declare; see functions.sql.
-- set_queue, set_tenant, set_kind, set_use_case, pause_queue and resume_queue are the door for every language. Limits
-- come as a JSON object: null takes one away, and what is not named stays as it is. They hold with the next claim.

create or replace function jobd.parse_rate(rate text, out count integer, out period interval)
language sql immutable parallel safe
as $$
    -- What '100/m' or '5/2h' says, as in jobd/rate.py; nulls for what is no rate.
    select w.count, case when w.number <= w.most then w.number * w.unit end
      from (select u.*, extract(epoch from interval '8784 h') / extract(epoch from u.unit) as most
              from (select m[1]::bigint as count, coalesce(m[2], '1')::bigint as number,
                           case m[3] when 'w' then interval '168 h' when 'd' then interval '24 h' when 'h' then interval '1 h'
                                     when 'm' then interval '1 min' when 's' then interval '1 s' else interval '0.001 s' end as unit
                      from regexp_match(btrim(parse_rate.rate), '^([0-9]{1,9})\s*/\s*([0-9]{1,9})?\s*(w|d|h|m|s|ms)$') m) u) w
     where w.count between 1 and 1000000 and w.number between 1 and w.most
$$;

create or replace function jobd.parse_tolerance(tolerance text) returns interval
language plpgsql stable
as $$
-- What '10m' or '1 hour' says, or a number of seconds; null for what is no duration.
declare
    span interval;
begin
    span := parse_tolerance.tolerance::interval;
    return case when span between interval '0' and interval '36525 days' then span end;
exception when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
    return null;
end
$$;

create or replace function jobd.limit_columns(limits jsonb, allowed text[]) returns jsonb
language plpgsql stable
as $$
-- What the columns get, for limits of these names: those of a rate are two, and where there is none the burst goes with it.
declare
    name    text;
    value   jsonb;
    plain   text;
    rate    record;
    columns jsonb := '{}';
    least   bigint;
    most    bigint;
    remedy  text;
begin
    if jsonb_typeof(limits) is distinct from 'object' then
        raise exception 'limits = %: a JSON object, like {"%": null}', left(quote_nullable(limits::text), 120), allowed[1]
            using errcode = 'invalid_parameter_value';
    end if;
    for name, value in select l.key, l.value from jsonb_each(limits) l loop
        if name <> all (allowed) then
            raise exception '% is no limit; there are %', quote_literal(left(name, 120)), array_to_string(allowed, ', ')
                using errcode = 'invalid_parameter_value';
        end if;
        value := nullif(value, 'null');
        plain := value #>> '{}';
        remedy := null;
        if name in ('fair', 'paused', 'exact', 'ordered') then
            if jsonb_typeof(value) <> 'boolean' then
                remedy := 'true or false';
            end if;
            columns := columns || jsonb_build_object(name, coalesce(value, to_jsonb(name = 'exact')));
        elsif name = 'on_full' then
            if plain not in ('refuse', 'shed', 'delay') then
                remedy := 'refuse, shed or delay';
            end if;
            columns := columns || jsonb_build_object(name, coalesce(plain, 'refuse'));
        elsif name = 'delay_tolerance' then
            columns := columns || jsonb_build_object(name, jobd.parse_tolerance(plain));
            if value is not null and columns -> name = 'null' then
                remedy := 'a duration of at most 36525 days, like 10m';
            end if;
        elsif name in ('rate', 'key_rate') then
            select p.count, p.period into rate
              from jobd.parse_rate(case when jsonb_typeof(value) = 'string' then plain end) p;
            if value is not null and rate.count is null then
                remedy := 'a rate, like 10/s, 100/m or 5/2h';
            end if;
            columns := jsonb_build_object('rate_count', rate.count, 'rate_period', rate.period)
                       || case when value is null then jsonb_build_object('rate_burst', null) else '{}' end || columns;
        else
            least := case when name in ('max_running', 'max_pending') then 0 else 1 end;
            most := case name when 'weight' then 1000 when 'burst' then 1000000 when 'key_burst' then 1000000 else 2147483647 end;
            if jsonb_typeof(value) <> 'number' or plain !~ '^[0-9]{1,10}$' or plain::bigint not between least and most then
                remedy := format('a whole number from %s to %s', least, most);
            end if;
            columns := columns || jsonb_build_object(
                case when name in ('burst', 'key_burst') then 'rate_burst' else name end,
                coalesce(value, case when name in ('weight', 'key_limit') then '1'::jsonb end));
        end if;
        if remedy is not null then
            raise exception '% = %: %, or null', name, left(quote_nullable(plain), 120), remedy
                using errcode = 'invalid_parameter_value';
        end if;
    end loop;
    return columns;
end
$$;

create or replace function jobd.check_limited(what text, name text, rate_count integer, rate_burst integer) returns void
language plpgsql immutable parallel safe
as $$
-- Whether this can be called so, and whether there is a rate where there is a burst.
begin
    if what in ('queue', 'kind') and coalesce(name !~ '^[A-Za-z_][A-Za-z0-9_.:-]{0,99}$', true) then
        raise exception '% = %: a letter or _, then at most 99 letters, digits or any of _ . : -', what, quote_nullable(left(name, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if name is null or octet_length(name) not between 1 and 255 then
        raise exception '% = %: a text of 1 to 255 bytes', what, quote_nullable(left(name, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if rate_burst is not null and rate_count is null then
        raise exception '%burst = %: there is no rate that it could belong to; set both', case what when 'kind' then 'key_' else '' end, rate_burst
            using errcode = 'invalid_parameter_value', constraint = 'burst_of_a_rate';
    end if;
end
$$;

create or replace function jobd.set_queue(name text, limits jsonb, by text default null) returns void
language plpgsql volatile
as $$
-- Set limits of a queue: max_running, rate, burst, fair, weight, delay_tolerance, and whether it is paused.
#variable_conflict use_column
declare
    columns jsonb := jobd.limit_columns(limits, '{max_running,rate,burst,fair,weight,delay_tolerance,paused}');
    after   jobd.queues;
begin
    perform jobd.check_limited('queue', set_queue.name, null, null);
    insert into jobd.queues (name) values (set_queue.name) on conflict do nothing;
    update jobd.queues q
       set (max_running, rate_count, rate_period, rate_burst, fair, weight, delay_tolerance)
               = (select n.max_running, n.rate_count, n.rate_period, n.rate_burst, n.fair, n.weight, n.delay_tolerance
                    from jsonb_populate_record(q, columns - 'paused') n),
           paused_at = case columns -> 'paused' when 'true' then coalesce(q.paused_at, clock_timestamp())
                                                when 'false' then null else q.paused_at end,
           paused_by = case columns -> 'paused' when 'true' then case when q.paused_at is null then coalesce(set_queue.by, session_user) else q.paused_by end
                                                when 'false' then null else q.paused_by end,
           changed_at = case when columns - 'paused' <> '{}' then clock_timestamp() else q.changed_at end,
           changed_by = case when columns - 'paused' <> '{}' then coalesce(set_queue.by, session_user) else q.changed_by end
     where q.name = set_queue.name
    returning q.* into after;
    perform jobd.check_limited('queue', after.name, after.rate_count, after.rate_burst);
    perform pg_notify('jobd_limits', '');
end
$$;

create or replace function jobd.set_tenant(id text, limits jsonb, by text default null) returns void
language plpgsql volatile
as $$
-- Set limits of a tenant: max_pending, on_full, exact, max_running, rate, burst, weight.
#variable_conflict use_column
declare
    columns jsonb := jobd.limit_columns(limits, '{max_pending,on_full,exact,max_running,rate,burst,weight}');
    after   jobd.tenants;
begin
    perform jobd.check_limited('tenant', set_tenant.id, null, null);
    insert into jobd.tenants (id) values (set_tenant.id) on conflict do nothing;
    update jobd.tenants t
       set (max_pending, on_full, exact, max_running, rate_count, rate_period, rate_burst, weight)
               = (select n.max_pending, n.on_full, n.exact, n.max_running, n.rate_count, n.rate_period, n.rate_burst, n.weight
                    from jsonb_populate_record(t, columns) n),
           changed_at = clock_timestamp(), changed_by = coalesce(set_tenant.by, session_user)
     where t.id = set_tenant.id
    returning t.* into after;
    perform jobd.check_limited('tenant', after.id, after.rate_count, after.rate_burst);
    perform pg_notify('jobd_limits', '');
end
$$;

create or replace function jobd.remove_tenant(id text) returns boolean
language sql volatile
as $$
    -- Forget all limits of a tenant. False: it had none.
    with gone as (delete from jobd.tenants t where t.id = remove_tenant.id returning pg_notify('jobd_limits', ''))
    select exists (select from gone)
$$;

create or replace function jobd.set_kind(name text, limits jsonb, by text default null) returns void
language plpgsql volatile
as $$
-- Set limits of each key of a kind: key_limit, ordered, key_rate, key_burst.
#variable_conflict use_column
declare
    columns jsonb := jobd.limit_columns(limits, '{key_limit,ordered,key_rate,key_burst}');
    after   jobd.kinds;
begin
    perform jobd.check_limited('kind', set_kind.name, null, null);
    insert into jobd.kinds (name) values (set_kind.name) on conflict do nothing;
    update jobd.kinds k
       set (key_limit, ordered, rate_count, rate_period, rate_burst)
               = (select n.key_limit, n.ordered, n.rate_count, n.rate_period, n.rate_burst
                    from jsonb_populate_record(k, columns) n),
           changed_at = clock_timestamp(), changed_by = coalesce(set_kind.by, session_user)
     where k.name = set_kind.name
    returning k.* into after;
    perform jobd.check_limited('kind', after.name, after.rate_count, after.rate_burst);
    if columns ?| '{key_limit,ordered}' and after.ordered and after.key_limit > 1 then
        raise exception 'key_limit = %: jobs of a key that run in order run one at a time; leave it out, or ordered', after.key_limit
            using errcode = 'invalid_parameter_value', constraint = 'limit_of_an_ordered_key';
    end if;
    perform pg_notify('jobd_limits', '');
end
$$;

create or replace function jobd.set_use_case(name text, limits jsonb, by text default null) returns void
language plpgsql volatile
as $$
-- Set the limit of a use case: max_running, where null is the 10 of those that nothing is said of.
#variable_conflict use_column
declare
    columns jsonb := jobd.limit_columns(limits, '{max_running}');
begin
    perform jobd.check_limited('use_case', set_use_case.name, null, null);
    insert into jobd.use_cases (name) values (set_use_case.name) on conflict do nothing;
    update jobd.use_cases u
       set max_running = (jsonb_populate_record(u, columns)).max_running,
           changed_at = clock_timestamp(), changed_by = coalesce(set_use_case.by, session_user)
     where u.name = set_use_case.name;
    perform pg_notify('jobd_limits', '');
end
$$;

create or replace function jobd.pause_queue(name text, by text default null) returns timestamptz
language plpgsql volatile
as $$
-- No daemon claims from this queue until it is resumed; what runs goes on. Returns since when it is paused.
#variable_conflict use_column
begin
    perform jobd.set_queue(pause_queue.name, '{"paused": true}', pause_queue.by);
    return (select q.paused_at from jobd.queues q where q.name = pause_queue.name);
end
$$;

create or replace function jobd.resume_queue(name text, by text default null) returns boolean
language plpgsql volatile
as $$
-- The queue is claimed from again. False: it was never heard of.
#variable_conflict use_column
begin
    if not exists (select from jobd.queues q where q.name = resume_queue.name) then
        return false;
    end if;
    perform jobd.set_queue(resume_queue.name, '{"paused": false}', resume_queue.by);
    perform jobd.wake(array[resume_queue.name]);
    return true;
end
$$;
