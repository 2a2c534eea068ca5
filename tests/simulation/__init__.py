"""A simulation: enforcers, relays, feed and topic in one process, by one seed.

It asks whether the protocol between log, topic and consumers holds whatever happens, in whatever
order; tests on the real PostgreSQL and the real Kafka ask whether they do what the protocol takes
them to do. There is no PostgreSQL here, no Kafka, no thread and no clock, so that thousands of
schedules take a minute, and a seed brings the same each time.

    make simulate                       # 1,000 schedules from a seed of its own, which it tells
    make simulate SEED=7 COUNT=20000    # so many from this seed on

**A schedule** (``schedule.py``) is 30 to 80 steps, drawn without a look at what they will meet. So
of one that fails, steps are left out as long as it still fails the same rule, and what is left is
shown as a history (``simulate.py``). A step is one of

- a client records a claim, release, transfer, answer, assignment, follow-up, deadline or unparking,
  or the organisation changes; some claims cannot be decided until a defect is mended;
- a relay sends some events; the broker takes some and acknowledges some of these; the checkpoint
  moves, or the relay ends before; a second relay takes over while the first one goes on sending;
- an enforcer or projector reads a batch of a partition, or decides and commits it, or is cut off in
  between: before or after its commit, knowing of it or not; another one takes the partition over at
  any point, and the first one goes on as a zombie;
- what ended relays had sent comes late, or never; retention cuts off the front of a partition; the
  topic is lost and made anew;
- the database crashes, and loses what had not waited for the disk; or it loses its tail, which is
  put back from the topic, and given up where the topic does not hold all of it.

**At the end** all faults end, everything catches up, and it must hold (``checking.py``) that each
request is decided once, those of a customer in the order of the log; that no customer ever had two
owners; that the log decided again is the log, by the very checks of ``guishu verify``; that guards
and parked requests are what the log makes of them; that what was acknowledged is in the log, unless
it was given up; that the topic has every event, and whoever reads it as a consumer reads the log,
byte for byte; that progress never went back, and nobody wrote who had been replaced.
``test_simulation.py`` breaks these rules one by one, and sees that each is missed.

**Real** are the chain and checkpoint of the relay, its records, the gathering of what comes, the
deciding of batches with its guesses, the deciders, settled state and the JSON of its guards, the
folding, and the audit. **Modelled** is what has SQL or a client of Kafka inside, as it stands in
``consumers/progress.py``, ``enforcer.py``, ``parking.py``, ``kafka/feed.py``, ``kafka/relay.py``,
``kafka/tail.py`` and ``rebuilding.py``: where one of those is changed, its model here is to follow.

**Not covered**: locks (transactions follow each other, as they do under the guards' locks; a
process that is frozen within one is as one frozen in front of it, or ended by the server);
hand-overs and groups; batches that are halved; a relay that goes on while its topic is made anew,
and is not started again (at the end one is); how a group of consumers shares its partitions (any
process may follow any of them at any time, which is more than Kafka allows); and a failover to a
server that does not even know the newest generation, whose number would then be given twice.
"""
