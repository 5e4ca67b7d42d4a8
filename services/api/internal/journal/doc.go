// Package journal is the API's writing side: it reads the aggregate from the log's leader, lets package domain decide,
// and appends what was decided with the expected sequence. A writer that was overtaken reads and decides again, a bounded
// number of times. Every method answers only when the log has acknowledged, or when there was nothing to append; its
// sequence is then that of what is stored already.
//
// Every call to the broker is bounded by Timeout, and a broker that is away is an error at once: bus.ErrUnavailable.
package journal
