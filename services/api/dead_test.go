package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/events"
)

type deadAnswer struct {
	Sequence       uint64    `json:"sequence"`
	ParkedAt       time.Time `json:"parked_at"`
	Handler        string
	Reason         string
	Stream         string
	StreamSequence uint64 `json:"stream_sequence"`
	Subject        string
	Size           *int
	RetriedAt      *time.Time `json:"retried_at"`
	RetriedBy      *string    `json:"retried_by"`
	RetryRefused   *string    `json:"retry_refused"`
	Headers        map[string]string
	Body, Encoding *string
}

type deadRetried struct {
	DeadSequence uint64 `json:"dead_sequence"`
	Sequence     uint64 `json:"sequence"`
	Again        bool   `json:"again"`
}

// said puts a message of an old agent into the log.
func (s *system) said(subject string, body []byte) bus.RawMsg {
	s.t.Helper()
	ack, err := s.bus.JetStream().Publish(s.t.Context(), subject, body)
	require.NoError(s.t, err)
	m, ok, err := s.bus.Get(s.t.Context(), events.StreamLog, ack.Sequence)
	require.NoError(s.t, err)
	require.True(s.t, ok)
	return m
}

// parked puts a message into DEAD, as a handler would.
func (s *system) parked(handler string, m bus.RawMsg) {
	s.t.Helper()
	require.NoError(s.t, s.bus.Park(s.t.Context(), bus.Dead{Handler: handler, Message: m, Reason: errors.New("can't be read")}))
}

func startedBody(result string) []byte {
	return fmt.Appendf(nil, `{"result_id":%q,"request_id":"q","exec_id":"e1","pc_id":"pc-02","started_at":"2100-01-01T00:00:00Z","manifest_id":"hello","version":"1"}`, result)
}

func TestDeadLetters(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	require.Equal(t, "[]", s.do(http.MethodGet, "/api/dead", "").text())
	m := s.said("events.started.e1.pc-02", startedBody("r1"))
	m.Header = events.Header{"X-Note": {"kept"}}
	s.parked("projector", m)
	s.parked("projector", s.said("results.x", []byte{0xff, 0}))
	for i := range 3 {
		s.parked("dispatch", bus.RawMsg{Stream: events.StreamLog, Seq: uint64(100 + i), Subject: "events.exec.e1.requested", Data: []byte("{}")})
	}
	var page []deadAnswer
	var seen []uint64
	path := "/api/dead?limit=2"
	for range 3 {
		got := s.do(http.MethodGet, path, "")
		got.into(t, &page)
		for _, l := range page {
			seen = append(seen, l.Sequence)
			require.Nil(t, l.Body)
		}
		link := got.header.Get("Link")
		if link == "" {
			break
		}
		require.True(t, strings.HasSuffix(link, `>; rel="next"`), link)
		path = strings.TrimPrefix(strings.TrimSuffix(link, `>; rel="next"`), "<")
	}
	require.Equal(t, []uint64{5, 4, 3, 2, 1}, seen)
	require.Empty(t, s.do(http.MethodGet, "/api/dead?limit=0", "").header.Get("Link"))
	s.do(http.MethodGet, "/api/dead?handler=projector", "").into(t, &page)
	require.Len(t, page, 2)
	require.Equal(t, []string{"LOG", "can't be read"}, []string{page[1].Stream, page[1].Reason})
	require.WithinDuration(t, time.Now(), page[1].ParkedAt, time.Minute)
	require.Nil(t, page[1].RetryRefused)

	var one deadAnswer
	s.do(http.MethodGet, "/api/dead/1", "").into(t, &one)
	require.Equal(t, map[string]string{"X-Note": "kept"}, one.Headers)
	require.Equal(t, string(startedBody("r1")), *one.Body)
	require.Equal(t, "text", *one.Encoding)
	require.Equal(t, m.Seq, one.StreamSequence)
	require.Equal(t, m.Subject, one.Subject)
	require.Equal(t, len(startedBody("r1")), *one.Size)
	s.do(http.MethodGet, "/api/dead/2", "").into(t, &one)
	require.Equal(t, "base64", *one.Encoding)
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte{0xff, 0}), *one.Body)

	for path, status := range map[string]int{
		"/api/dead/6": http.StatusNotFound, "/api/dead/0": http.StatusNotFound, "/api/dead/x": http.StatusBadRequest,
		"/api/dead?cursor=0": http.StatusBadRequest, "/api/dead?cursor=x": http.StatusBadRequest, "/api/dead?limit=x": http.StatusBadRequest,
	} {
		require.Equal(t, status, s.do(http.MethodGet, path, "").status, path)
	}
	require.Equal(t, http.StatusUnauthorized, s.do(http.MethodGet, "/api/dead", "", "Authorization", "").status)
}

// What could not be read, and can be now, is shown once it is retried; a second retry changes nothing, whatever its key.
func TestRetryDead(t *testing.T) {
	s := newSystem(t, parts{})
	s.parked("projector", bus.RawMsg{
		Stream: events.StreamLog, Seq: 1, Subject: "events.started.e1.pc-02", Data: startedBody("r1"), Header: events.Header{"X-Note": {"kept"}},
	})
	require.Equal(t, http.StatusNotFound, s.read("/api/results/r1").status)
	var first, again deadRetried
	s.write(http.MethodPost, "/api/dead/1/retry", "").into(t, &first)
	require.Equal(t, deadRetried{DeadSequence: 1, Sequence: s.lastSeq()}, first)
	require.Equal(t, http.StatusOK, s.read("/api/results/r1").status)
	s.write(http.MethodPost, "/api/dead/1/retry", "{}", "Idempotency-Key", "k").into(t, &again)
	require.Equal(t, deadRetried{DeadSequence: 1, Sequence: first.Sequence, Again: true}, again)
	require.Equal(t, first.Sequence, s.lastSeq())

	m, _, err := s.bus.Get(t.Context(), events.StreamLog, first.Sequence)
	require.NoError(t, err)
	require.Equal(t, "events.started.e1.pc-02", m.Subject)
	require.Equal(t, []string{"kept"}, m.Header["X-Note"])
	require.Equal(t, []string{"1"}, m.Header[bus.HeaderRetryOf])
	require.Equal(t, []string{"user:service-token"}, m.Header[bus.HeaderRetryActor])
	var one deadAnswer
	s.do(http.MethodGet, "/api/dead/1", "").into(t, &one)
	require.Equal(t, "user:service-token", *one.RetriedBy)
	require.NotNil(t, one.RetriedAt)
}

// A body that was too large to be carried twice is taken from the log while that has it.
func TestRetryDeadWithoutBody(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	body := []byte(strings.Repeat("x", events.MaxPayload/2+1))
	s.parked("projector", s.said("results.x", body))
	var page []deadAnswer
	s.do(http.MethodGet, "/api/dead", "").into(t, &page)
	require.Nil(t, page[0].Size)
	var one deadAnswer
	s.do(http.MethodGet, "/api/dead/1", "").into(t, &one)
	require.Equal(t, string(body), *one.Body)
	var r deadRetried
	s.write(http.MethodPost, "/api/dead/1/retry", "").into(t, &r)
	m, _, err := s.bus.Get(t.Context(), events.StreamLog, r.Sequence)
	require.NoError(t, err)
	require.Equal(t, body, m.Data)

	s.parked("projector", s.said("results.y", body))
	log, err := s.bus.JetStream().Stream(t.Context(), events.StreamLog)
	require.NoError(t, err)
	require.NoError(t, log.Purge(t.Context()))
	one = deadAnswer{}
	s.do(http.MethodGet, "/api/dead/3", "").into(t, &one)
	require.Nil(t, one.Body)
	got := s.do(http.MethodPost, "/api/dead/3/retry", "")
	require.Equal(t, http.StatusConflict, got.status)
	require.Contains(t, got.text(), "has left the log")
}

func TestRetryDeadRefused(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.parked("tick-due", bus.RawMsg{Stream: events.StreamTimers, Seq: 1, Subject: "timers.due.tick.s1.1"})
	s.parked("dispatch", bus.RawMsg{Stream: events.StreamLog, Seq: 1, Subject: "events.exec.e1.requested"})
	for seq, want := range map[int]struct {
		status int
		says   string
	}{
		1: {http.StatusUnprocessableEntity, "it is of TIMERS"}, 2: {http.StatusConflict, "Make the request anew"},
		3: {http.StatusNotFound, "dead letter 3 not found"},
	} {
		got := s.do(http.MethodPost, fmt.Sprintf("/api/dead/%d/retry", seq), "")
		require.Equal(t, want.status, got.status, got.text())
		require.Contains(t, got.text(), want.says)
		if want.status == http.StatusNotFound {
			continue
		}
		var one deadAnswer
		s.do(http.MethodGet, fmt.Sprintf("/api/dead/%d", seq), "").into(t, &one)
		require.Equal(t, got.text(), *one.RetryRefused)
	}
	require.Equal(t, http.StatusUnprocessableEntity, s.do(http.MethodPost, "/api/dead/1/retry", `{"force":true}`).status)
	require.Zero(t, s.lastSeq())
}
