package readmodel

import "time"

// Checkpoint is how far one stream has been applied. It is committed together with the rows, so it is the
// acknowledgement.
type Checkpoint struct {
	Stream string
	// Sequence is the last one applied or passed as poison; 0 before the first.
	Sequence uint64
	// MessageID is the Nats-Msg-Id of that message; empty where it bore none.
	MessageID string
	// At is when the broker stored that message. A stream that was restored from an older copy has another message at
	// Sequence: comparing At shows it.
	At time.Time
}

var checkpoints = relation{name: "checkpoints", key: 1, columns: []string{
	"stream TEXT", "sequence INTEGER", "message_id TEXT", "at INTEGER",
}}

func (c *Checkpoint) fields() []any {
	return []any{&c.Stream, sequence{&c.Sequence}, &c.MessageID, nanos{&c.At}}
}

// Checkpoint of a stream; its Sequence is 0 when nothing of the stream has been applied.
func (w *Writer) Checkpoint(stream string) (Checkpoint, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.db.checkpoint(stream)
}

func (d *database) checkpoint(stream string) (Checkpoint, error) {
	c := Checkpoint{Stream: stream}
	_, err := d.load(&checkpoints, c.fields(), stream)
	return c, err
}
