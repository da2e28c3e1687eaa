-- The functions of schema jobd for jobs that have ended: what is kept of them, and where; see functions.sql.

create or replace function jobd.with_error(errors jsonb, error jsonb) returns jsonb
language sql immutable parallel safe
as $$
    -- The errors of all attempts; of more than 20, the first and the last 19.
    select case when error is null then errors
                when jsonb_array_length(errors) >= 20 then (errors - 1) || jsonb_build_array(error)
                else errors || jsonb_build_array(error) end
$$;

create or replace function jobd.ended(job jobd.jobs, state text, reason text, result jsonb, error jsonb, at timestamptz,
                                      crashed integer default 0)
returns setof jobd.job_history
language sql stable
as $$
    -- The row of the history for a job that leaves `jobs`. One that was running gets claim_no + 1.
    -- The planner puts this into the calling statement, which halves the cost of a finish, but only while
    -- no argument is volatile: callers pass a column for `at`, never clock_timestamp() itself.
    select job.id, job.queue, job.kind, job.tenant_id, job.use_case, ended.state, job.priority, job.run_at,
           job.deadline_at, job.delay_tolerance, job.deadline_policy, job.payload, job.attempt, job.max_attempts,
           job.crashes + ended.crashed, job.generation, job.claim_no + (job.state = 'running')::int, job.worker_id, job.claimed_at,
           job.cancel_requested_at, job.unique_key, job.concurrency_key, job.backoff, job.timeout,
           jobd.with_error(job.errors, ended.error), job.progress, job.headers, job.created_at,
           ended.result, ended.reason, ended.at, job.unique_for
$$;

create or replace function jobd.tombstone(job jobd.jobs, state text, at timestamptz) returns setof jobd.tombstones
language sql stable
as $$
    -- What is left of a job that leaves `jobs` and whose queue does not keep it. Used as `ended` is.
    select job.id, job.claim_no + (job.state = 'running')::int, tombstone.at, tombstone.state, job.queue, job.kind,
           job.tenant_id
$$;

create or replace function jobd.ensure_partitions(days integer default 7, now timestamptz default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
as $$
-- Create and attach the partitions of the history from yesterday to `days` ahead, and those of the tombstones
-- to at most two, since every enqueue looks through them; returns how many were missing, or -1 when another
-- session is at it. Security definer, so that a worker without the right to create tables can still keep the
-- history going. ATTACH, unlike CREATE ... PARTITION OF, does not lock out the writers.
declare
    parent  text;
    day     date;
    name    text;
    missing integer := 0;
    today   date := (coalesce(ensure_partitions.now, pg_catalog.clock_timestamp()) at time zone 'UTC')::date;
begin
    if ensure_partitions.days not between 0 and 31
       or abs(today - (pg_catalog.clock_timestamp() at time zone 'UTC')::date) > 3660 then
        raise exception 'ensure_partitions: at most 31 days ahead, of a time within ten years'
            using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtext('jobd.ensure_partitions')) then
        return -1;
    end if;
    for parent, day in
        select p.parent, d::date
          from (values ('job_history', ensure_partitions.days), ('tombstones', least(ensure_partitions.days, 2))) p (parent, ahead),
               generate_series(today - 1, today + p.ahead, interval '1 day') d
    loop
        name := parent || '_' || to_char(day, 'YYYYMMDD');
        if to_regclass('jobd.' || name) is null then
            execute format('create table jobd.%I (like jobd.%I including all)', name, parent);
            execute format('alter table jobd.%I attach partition jobd.%I for values from (%L) to (%L)',
                           parent, name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            missing := missing + 1;
        end if;
    end loop;
    return missing;
end
$$;

revoke execute on function jobd.ensure_partitions(integer, timestamptz) from public;
