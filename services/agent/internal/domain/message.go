package domain

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Message is one thing the log is told: an item of the outbox. Exactly one of Event and Reply is set.
type Message struct {
	// ResultID names the run; messages of one run leave in the order in which they were put in.
	ResultID string        `json:"result_id"`
	Event    *events.Event `json:"event,omitempty"`
	Reply    *Reply        `json:"reply,omitempty"`
	// Uploads must be stored before the message leaves: it names them.
	Uploads []Upload `json:"uploads,omitempty"`
}

// Reply is a result in the words of kanade 0.43.45: the answer to an ad-hoc run, whose caller waits on the subject.
type Reply struct {
	Subject string          `json:"subject"`
	ID      string          `json:"id"`
	Data    json.RawMessage `json:"data"`
}

// Upload is a file of the spool on its way into the store result_output.
type Upload struct {
	File   string `json:"file"`
	Object string `json:"object"`
}

// Stamp is one moment on two clocks: the endpoint's, which says when something happened to it, and the broker's as well
// as it is known, which the envelope bears.
type Stamp struct{ Own, Broker time.Time }

const source = "/kanade/agent"

// Received tells of an entry that has just been made; nil for an ad-hoc run, whose caller hears of its end only.
func Received(e Entry, at Stamp) (*Message, error) {
	return fact(e, events.RunReceived{Run: e.Run, ReceivedAt: at.Own.UTC()}, at)
}

// Started tells that the script is about to start; nil for an ad-hoc run.
func Started(e Entry, at Stamp) (*Message, error) {
	return fact(e, events.RunStarted{Run: e.Run, StartedAt: at.Own.UTC()}, at)
}

// Skipped tells that the command is not run.
func Skipped(e Entry, s Skip, at Stamp) (*Message, error) {
	if e.Run.ExecID == "" {
		own := at.Own.UTC()
		return reply(e, wire.ExecResult{
			ExitCode: s.Code, Stderr: wire.SkippedPrefix + " " + s.Detail, StartedAt: own, FinishedAt: own,
		})
	}
	return fact(e, events.RunSkipped{
		Run: e.Run, SkippedAt: at.Own.UTC(), Code: s.Code, Reason: s.Reason, Detail: s.Detail,
	}, at)
}

// Finished tells how a run has ended. The outputs' uploads go with it.
func Finished(e Entry, end Ending, stdout, stderr events.Output, uploads []Upload, at Stamp) (*Message, error) {
	var m *Message
	var err error
	if e.Run.ExecID == "" {
		m, err = reply(e, execResult(e, end, stdout, stderr, at))
	} else {
		m, err = fact(e, events.RunFinished{
			Run: e.Run, StartedAt: e.StartedAt, FinishedAt: at.Own.UTC(), State: end.State, ExitCode: end.ExitCode,
			Reason: end.Reason, Detail: end.Detail, Stdout: stdout, Stderr: stderr,
		}, at)
	}
	if err != nil {
		return nil, err
	}
	m.Uploads = uploads
	return m, nil
}

func fact(e Entry, p events.Payload, at Stamp) (*Message, error) {
	if e.Run.ExecID == "" {
		return nil, nil
	}
	meta := events.Meta{
		ID: events.DeriveID(e.Run.ResultID, p.EventType()), Source: source, Time: at.Broker.UTC(),
		Actor: events.NewActor("agent", e.Run.PCID), CorrelationID: e.Run.ExecID, TraceParent: e.TraceParent,
	}
	ev, err := events.New(p, meta)
	if err != nil {
		return nil, err
	}
	return &Message{ResultID: e.Run.ResultID, Event: &ev}, nil
}

func execResult(e Entry, end Ending, stdout, stderr events.Output, at Stamp) wire.ExecResult {
	r := wire.ExecResult{
		ExitCode: wire.ExitStopped, Stdout: stdout.Text, Stderr: stderr.Text, StartedAt: e.StartedAt, FinishedAt: at.Own.UTC(),
		StdoutObject: stdout.Object, StderrObject: stderr.Object,
	}
	if end.ExitCode != nil {
		r.ExitCode = *end.ExitCode
		return r
	}
	if r.Stderr != "" && !strings.HasSuffix(r.Stderr, "\n") {
		r.Stderr += "\n"
	}
	r.Stderr += note(e, end)
	return r
}

// note is the last line of stderr by which readers of the wire tell how a run ended.
func note(e Entry, end Ending) string {
	if end.State == events.StateKilled {
		return wire.KilledNote(e.Run.ExecID)
	}
	if end.Detail != "" {
		return end.Detail
	}
	return end.Reason
}

func reply(e Entry, r wire.ExecResult) (*Message, error) {
	r.ResultID, r.RequestID, r.PCID, r.ManifestID = e.Run.ResultID, e.Run.RequestID, e.Run.PCID, e.Run.JobID
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode result %s: %w", e.Run.ResultID, err)
	}
	return &Message{ResultID: e.Run.ResultID, Reply: &Reply{
		Subject: wire.SubjectResults(e.Run.RequestID), ID: events.DeriveID(e.Run.ResultID, "reply"), Data: data,
	}}, nil
}

// WithoutObject is the message as it goes out when an upload can't be had: the fact stays, with head and tail of the
// output, marked as cut; the object it would have named does not.
func (m Message) WithoutObject(name string) (Message, error) {
	if m.Event == nil {
		r, err := wire.DecodeExecResult(m.Reply.Data)
		if err != nil {
			return m, fmt.Errorf("decode result %s: %w", m.ResultID, err)
		}
		r.StdoutObject, r.StderrObject = unless(r.StdoutObject, name), unless(r.StderrObject, name)
		data, err := json.Marshal(r)
		if err != nil {
			return m, fmt.Errorf("encode result %s: %w", m.ResultID, err)
		}
		reply := *m.Reply
		reply.Data, m.Reply = data, &reply
		return m, nil
	}
	p, err := m.Event.Payload()
	if err != nil {
		return m, err
	}
	f, ok := p.(events.RunFinished)
	if !ok {
		return m, nil
	}
	for _, o := range []*events.Output{&f.Stdout, &f.Stderr} {
		if o.Object == name {
			o.Object, o.SHA256 = "", ""
		}
	}
	ev, err := events.New(f, m.Event.Meta)
	if err != nil {
		return m, err
	}
	m.Event = &ev
	return m, nil
}

func unless(s, name string) string {
	if s == name {
		return ""
	}
	return s
}
