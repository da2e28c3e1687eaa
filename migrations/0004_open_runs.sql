-- What a schedule knows of its own jobs: which have not ended, and when one last succeeded. The history may
-- forget both before the schedule occurs again.

alter table jobd.schedules
    add column open_jobs       uuid[] not null default '{}',
    add column last_success_at timestamptz;

comment on column jobd.schedules.open_jobs is
    'its jobs, in the order of their occurrences, that had not ended when a scheduler last looked';

update jobd.schedules s
   set open_jobs = array(select r.job_id from jobd.schedule_runs r join jobd.jobs j on j.id = r.job_id
                          where r.schedule_id = s.id order by r.fire_at);
