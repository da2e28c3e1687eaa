"""The application that the container test mounts into the image."""

from jobd import Jobs

jobs = Jobs()


@jobs.handler("noop")
async def noop(n: int) -> dict[str, int]:
    return {"n": n}
