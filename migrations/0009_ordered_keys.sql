-- The jobs that hold an ordered key while they wait for their next attempt: found without a look at all that wait.

create index jobs_held on jobd.jobs (concurrency_key)
    where state = 'scheduled' and claim_no > 0 and concurrency_key is not null;
