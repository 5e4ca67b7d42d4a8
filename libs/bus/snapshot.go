package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Snapshots are the broker's own, in its own form: sequences, times, headers and lifetimes are kept. The protocol is
// ADR-8 of NATS, written here on the client: the library that has it brings the whole of NATS's command line along.
const (
	snapshotChunk  = 128 << 10
	snapshotWindow = 8 << 20
	// chunkTimeout bounds the wait for the next piece; the broker itself gives up after five seconds of silence.
	chunkTimeout = 30 * time.Second
	// restoredTimeout bounds the wait for the broker's last word, when it has everything.
	restoredTimeout = 10 * time.Minute
)

// Snapshot says what the snapshot of one stream holds.
type Snapshot struct {
	Stream string `json:"stream"`
	// Config and State are the broker's, to be given back to it as they are.
	Config json.RawMessage `json:"config"`
	State  json.RawMessage `json:"state"`
	// First and Last sequence, and how many messages the stream held when the snapshot began; what came later is not in
	// it.
	First    uint64 `json:"first_seq"`
	Last     uint64 `json:"last_seq"`
	Messages uint64 `json:"messages"`
	// Removed is how many of these may be missing, because they were removed or replaced while the snapshot was taken.
	Removed uint64 `json:"removed,omitempty"`
}

// OurStreams lists every stream, bucket and object store that Ensure has made, of this or another revision, in the order
// of their names.
func (b *Bus) OurStreams(ctx context.Context) ([]string, error) {
	var names []string
	list := b.js.ListStreams(ctx)
	for info := range list.Info() {
		if _, ours := info.Config.Metadata[metadataRevision]; ours {
			names = append(names, info.Config.Name)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list streams: %w", unavailable(err))
	}
	slices.Sort(names)
	return names, nil
}

// Snapshot writes a stream to w as it is at the call, while it goes on being used. With consumers those are in it as well,
// with what they have acknowledged by then. A lost connection ends it with ErrUnavailable; ErrNotFound: no such stream.
func (b *Bus) Snapshot(ctx context.Context, stream string, consumers bool, w io.Writer) (Snapshot, error) {
	s := Snapshot{Stream: stream}
	session, release, err := b.connected(ctx)
	if err == nil {
		defer release()
		err = b.snapshot(session, &s, consumers, w)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("take snapshot of stream %s: %w", stream, notFound(unavailable(err)))
	}
	return s, nil
}

func (b *Bus) snapshot(ctx context.Context, s *Snapshot, consumers bool, w io.Writer) error {
	inbox := b.nc.NewInbox()
	chunks, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer chunks.Unsubscribe()
	request := map[string]any{
		"deliver_subject": inbox, "no_consumers": !consumers, "chunk_size": snapshotChunk, "window_size": snapshotWindow,
	}
	if err := b.api(ctx, "STREAM.SNAPSHOT."+s.Stream, request, s); err != nil {
		return err
	}
	var then streamState
	if err := json.Unmarshal(s.State, &then); err != nil {
		return fmt.Errorf("decode state: %w", err)
	}
	s.First, s.Last, s.Messages = then.First, then.Last, then.Messages
	if err := receive(ctx, chunks, w); err != nil {
		return err
	}
	now, err := b.state(ctx, s.Stream)
	s.Removed = then.Messages + now.Last - then.Last - now.Messages
	return err
}

// receive writes chunks until the one that says how it ended.
func receive(ctx context.Context, chunks *nats.Subscription, w io.Writer) error {
	for {
		m, err := nextChunk(ctx, chunks)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if len(m.Data) == 0 {
			if status := m.Header.Get("Status"); status != "" && status != "204" {
				return fmt.Errorf("the broker broke off: %s %s", status, m.Header.Get("Description"))
			}
			return nil
		}
		if _, err := w.Write(m.Data); err != nil {
			return err
		}
		if m.Reply != "" {
			if err := m.Respond(nil); err != nil {
				return err
			}
		}
	}
}

func nextChunk(ctx context.Context, chunks *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkTimeout)
	defer cancel()
	return chunks.NextMsgWithContext(ctx)
}

// streamState is what a stream holds.
type streamState struct {
	First    uint64 `json:"first_seq"`
	Last     uint64 `json:"last_seq"`
	Messages uint64 `json:"messages"`
}

func (b *Bus) state(ctx context.Context, stream string) (streamState, error) {
	var info struct {
		State streamState `json:"state"`
	}
	err := b.api(ctx, "STREAM.INFO."+stream, struct{}{}, &info)
	return info.State, err
}

// Restore makes a stream of a snapshot and gives the number of messages that it holds then: fewer than the snapshot where
// their time was up. ErrExists: the stream is there, and left as it is. After another error a part of it may be there.
func (b *Bus) Restore(ctx context.Context, s Snapshot, r io.Reader) (messages uint64, err error) {
	session, release, err := b.connected(ctx)
	var restored streamState
	if err == nil {
		defer release()
		restored, err = b.restore(session, s, r)
	}
	if err == nil && (restored.Last != s.Last || restored.Messages > s.Messages) {
		err = fmt.Errorf("it ends at %d with %d messages, not at %d with %d", restored.Last, restored.Messages, s.Last, s.Messages)
	}
	if err != nil {
		return 0, fmt.Errorf("restore stream %s: %w", s.Stream, exists(unavailable(err)))
	}
	return restored.Messages, nil
}

// ErrExists says that a stream is there already.
var ErrExists = errors.New("it is there already")

// errRestoreExists is the broker's number for it.
const errRestoreExists = 10130

func exists(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == errRestoreExists {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

func (b *Bus) restore(ctx context.Context, s Snapshot, r io.Reader) (streamState, error) {
	var begun struct {
		DeliverSubject string `json:"deliver_subject"`
	}
	request := map[string]any{"config": s.Config, "state": s.State}
	if err := b.api(ctx, "STREAM.RESTORE."+s.Stream, request, &begun); err != nil {
		return streamState{}, err
	}
	chunk := make([]byte, snapshotChunk)
	for {
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			if _, err := b.giveChunk(ctx, begun.DeliverSubject, chunk[:n], chunkTimeout); err != nil {
				return streamState{}, err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return b.giveChunk(ctx, begun.DeliverSubject, nil, restoredTimeout)
		}
		if err != nil {
			return streamState{}, err
		}
	}
}

// giveChunk sends a piece of a snapshot, or with nothing the end, which is answered with the state of the new stream.
func (b *Bus) giveChunk(ctx context.Context, subject string, chunk []byte, patience time.Duration) (streamState, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := b.nc.RequestWithContext(ctx, subject, chunk)
	if err != nil {
		return streamState{}, fmt.Errorf("send: %w", err)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		State streamState         `json:"state"`
	}
	if len(reply.Data) > 0 {
		if err := json.Unmarshal(reply.Data, &answer); err != nil {
			return streamState{}, fmt.Errorf("decode answer: %w", err)
		}
	}
	if answer.Error != nil {
		return streamState{}, answer.Error
	}
	return answer.State, nil
}

// Durable is a durable consumer and how far it was.
type Durable struct {
	Stream string                   `json:"stream"`
	Config jetstream.ConsumerConfig `json:"config"`
	// AckFloor is the sequence up to which everything for it was acknowledged.
	AckFloor uint64 `json:"ack_floor"`
}

// Durables lists the durable consumers of a stream.
func (b *Bus) Durables(ctx context.Context, stream string) ([]Durable, error) {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("list consumers of stream %s: %w", stream, notFound(unavailable(err)))
	}
	var all []Durable
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Config.Durable != "" {
			all = append(all, Durable{Stream: stream, Config: info.Config, AckFloor: info.AckFloor.Stream})
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list consumers of stream %s: %w", stream, unavailable(err))
	}
	return all, nil
}

// RestoreDurable makes a durable consumer that begins behind what the old one had acknowledged.
func (b *Bus) RestoreDurable(ctx context.Context, d Durable) error {
	c := d.Config
	c.DeliverPolicy, c.OptStartSeq, c.OptStartTime = jetstream.DeliverByStartSequencePolicy, d.AckFloor+1, nil
	var err error
	if c.DeliverSubject != "" {
		_, err = b.js.CreatePushConsumer(ctx, d.Stream, c)
	} else {
		_, err = b.js.CreateConsumer(ctx, d.Stream, c)
	}
	if err != nil {
		return fmt.Errorf("restore consumer %s of %s: %w", c.Durable, d.Stream, unavailable(err))
	}
	return nil
}

// DeleteStream removes a stream with everything in it. ErrNotFound: there is none.
func (b *Bus) DeleteStream(ctx context.Context, name string) error {
	if err := b.js.DeleteStream(ctx, name); err != nil {
		return fmt.Errorf("delete stream %s: %w", name, notFound(unavailable(err)))
	}
	return nil
}

// DeleteMessage removes one message of a stream; that there is none is an error.
func (b *Bus) DeleteMessage(ctx context.Context, stream string, seq uint64) error {
	request := map[string]any{"seq": seq, "no_erase": true}
	if err := b.api(ctx, "STREAM.MSG.DELETE."+stream, request, &struct{}{}); err != nil {
		return fmt.Errorf("delete message %d of stream %s: %w", seq, stream, notFound(err))
	}
	return nil
}
