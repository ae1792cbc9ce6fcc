"""Starting daemons on a fresh database of the kind this run tests, and stopping them all."""

import itertools

import chelad


class Store:
    """Makes the environment that puts a daemon on an empty database of the chosen kind."""

    def __init__(self, kind, cluster=None):
        self.kind = kind
        self.cluster = cluster
        self.spare = []  # URLs of databases that are empty again

    def fresh(self):
        if self.kind == "postgres":
            url = self.spare.pop() if self.spare else self.cluster.new_database()
            return {"DATABASE_URL": url}
        return {}

    def give_back(self, settings):
        """Nobody uses that database any more. Making and removing one takes far longer."""
        if "DATABASE_URL" in settings:
            self.cluster.empty(settings["DATABASE_URL"])
            self.spare.append(settings["DATABASE_URL"])


_state_numbers = itertools.count(1)


class Starter:
    """Starts daemons and stops what is left of them."""

    def __init__(self, store, scratch):
        self.store = store
        self.scratch = scratch
        self.started = []
        self.borrowed = []

    def new(self, *flags, env=None, state=None, quick=True, fresh=True, preexec=None):
        """A daemon that is not running yet."""
        database = self.store.fresh() if fresh else {}
        self.borrowed.append(database)
        settings = {**database, **(env or {})}
        state = state or self.scratch / f"s{next(_state_numbers)}"
        flags = (chelad.QUICK if quick else ()) + flags
        daemon = chelad.Daemon(state, flags, settings, preexec)
        self.started.append(daemon)
        return daemon

    def __call__(self, *flags, **options):
        return self.new(*flags, **options).start()

    def stop(self):
        problems = []
        for daemon in self.started:
            try:
                daemon.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        for database in self.borrowed:
            self.store.give_back(database)
        assert not problems, "\n".join(problems)
