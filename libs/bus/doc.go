// Package bus is how kanade speaks to JetStream: it makes the streams, appends facts with a check, delivers messages to
// handlers, follows a stream in order, and sets timers. What the messages mean is package events' business.
//
// Rooms:
//
//   - bus.go: one connection, which reconnects for ever. clock.go: the broker's clock. ensure.go: streams, buckets and
//     stores made equal to their declaration.
//   - append.go: the only way a fact gets into the log. read.go: the state of an aggregate and strong reads.
//     publish.go: commands and whatever else is published, each acknowledged.
//   - router.go, middleware.go, dead.go: durable handlers. A handler is called at least once for every message of its
//     filters until it returns nil. pull.go and push.go: the two transports under it.
//   - follow.go: a stream in order and in batches, for projections and folds that keep their own position.
//   - timer.go: one-shot timers kept by the broker. view.go: buckets made from the log. object.go: object stores.
//   - snapshot.go: whole streams out of a broker and back.
//
// What handlers may rely on: a message is delivered again until the handler returns nil, about a second after the death
// of the process that had it. What they must tolerate: a message delivered twice, also at the same time in two
// processes (one that stalled for more than a second is taken for dead), and with several workers in any order.
//
// Nothing here starts a goroutine that outlives Bus.Close, Router.Run or Follow.
package bus
