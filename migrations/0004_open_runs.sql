-- What a schedule knows of its own jobs: which have not ended, when one last succeeded, and which occurrences wait
-- for room. The history may forget the first two before the schedule occurs again.

alter table jobd.schedules
    add column open_jobs       uuid[] not null default '{}',
    add column last_success_at timestamptz,
    add column queued_until    timestamptz,
    add column passed_from     timestamptz,
    -- One that is removed and added anew is not taken for the one that was read before.
    alter column revision set default (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    -- What Python can compute with.
    add constraint schedules_times_check check (greatest(anchor, starts_at, ends_at) < '9001-01-01'
                                                and least(anchor, starts_at, ends_at) >= '0002-01-01'),
    add constraint schedules_spans_check check (
        least(misfire_grace, stagger, jitter) >= '0' and greatest(misfire_grace, jitter) <= interval '36525 days'
        and stagger <= interval '1 day');

comment on column jobd.schedules.open_jobs is
    'its jobs, in the order of their occurrences, that had not ended when a scheduler last looked';
comment on column jobd.schedules.queued_until is
    'what occurs until then waits for the jobs before it, and runs however late';

comment on column jobd.schedules.passed_from is
    'since when what occurs up to passed_until is passed over';

update jobd.schedules s
   set open_jobs = array(select r.job_id from jobd.schedule_runs r join jobd.jobs j on j.id = r.job_id
                          where r.schedule_id = s.id order by r.fire_at);
