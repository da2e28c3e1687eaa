"""The roles inside a worker process. Each is one small file; `daemon` puts them together.

    work loop       producer -> executor -> finisher
    control thread  heartbeat, notifier, maintenance, leader

Nothing here knows PostgreSQL's driver, HTTP or metrics: roles speak to a store and tell `events`.
"""
