"""HTTP: one ASGI application on one port, served from the control thread.

`probes` answers what a container platform and a Prometheus ask, `headers` guards every answer,
`server` listens. Importing this package imports none of them: a daemon without HTTP pays for none.
"""
