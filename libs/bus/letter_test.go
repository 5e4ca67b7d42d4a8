package bus_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// report is a message of an old agent in the log.
func report(t testing.TB, b *bus.Bus, subject, body string) bus.RawMsg {
	t.Helper()
	ack, err := b.JetStream().Publish(t.Context(), subject, []byte(body))
	require.NoError(t, err)
	m, ok, err := b.Get(t.Context(), events.StreamLog, ack.Sequence)
	require.NoError(t, err)
	require.True(t, ok)
	return m
}

func park(t testing.TB, b *bus.Bus, handler string, m bus.RawMsg) {
	t.Helper()
	require.NoError(t, b.Park(t.Context(), bus.Dead{Handler: handler, Message: m, Reason: errors.New("broken"), Once: handler == "projector"}))
}

func letter(t testing.TB, b *bus.Bus, seq uint64) bus.Letter {
	t.Helper()
	l, ok, err := b.Letter(t.Context(), seq)
	require.NoError(t, err)
	require.True(t, ok)
	return l
}

func TestLetterIsWhatWasParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		m := report(t, b, "results.abc", "poison")
		m.Header = events.Header{"ce-id": {"x"}, "Nats-TTL": {"never"}}
		park(t, b, "projector", m)
		l := letter(t, b, 1)
		require.WithinDuration(t, time.Now(), l.ParkedAt, time.Second)
		l.ParkedAt, m.Time, m.Header = time.Time{}, time.Time{}, events.Header{"ce-id": {"x"}}
		require.Equal(t, bus.Letter{Seq: 1, Handler: "projector", Reason: "broken", Message: m, Size: 6}, l)

		_, _, err := b.RetryLetter(t.Context(), letter(t, b, 1), "user:op")
		require.NoError(t, err)
		for _, seq := range []uint64{0, 2, 3} { // nothing, the note of the retry, nothing
			_, ok, err := b.Letter(t.Context(), seq)
			require.NoError(t, err)
			require.False(t, ok, seq)
		}
	})
}

// Pages of every size, with notes of retries, purged letters and another handler's between them, give every letter once,
// newest first.
func TestLettersInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		page, next, err := b.Letters(t.Context(), "", 0, 10)
		require.NoError(t, err)
		require.Empty(t, page)
		require.Zero(t, next)

		const letters = 60
		var notes uint64
		want := map[string][]uint64{}
		for i := range letters {
			handler := "projector"
			if i%20 < 10 {
				handler = "work"
			}
			park(t, b, handler, report(t, b, fmt.Sprintf("results.%d", i), "poison"))
			seq := uint64(i+1) + notes
			if i%3 == 0 {
				_, _, err := b.RetryLetter(t.Context(), letter(t, b, seq), "user:op")
				require.NoError(t, err)
				notes++
			}
			if i == 0 || i == 17 {
				dead, err := b.JetStream().Stream(t.Context(), events.StreamDead)
				require.NoError(t, err)
				require.NoError(t, dead.DeleteMsg(t.Context(), seq))
				continue
			}
			for _, name := range []string{handler, ""} {
				want[name] = append([]uint64{seq}, want[name]...)
			}
		}
		for _, handler := range []string{"", "work", "projector", "nobody"} {
			for _, limit := range []int{1, 2, 7, letters, 10 * bus.MaxLetters} {
				var got []uint64
				for before := uint64(0); ; before = next {
					page, next, err = b.Letters(t.Context(), handler, before, limit)
					require.NoError(t, err)
					require.LessOrEqual(t, len(page), limit)
					for _, l := range page {
						require.Nil(t, l.Message.Data)
						require.Equal(t, 6, l.Size)
						require.Equal(t, letter(t, b, l.Seq).Retried, l.Retried)
						got = append(got, l.Seq)
					}
					if next == 0 {
						break
					}
				}
				require.Equal(t, want[handler], got, "%q in pages of %d", handler, limit)
			}
		}
		consumers, err := b.JetStream().Stream(t.Context(), events.StreamDead)
		require.NoError(t, err)
		require.Zero(t, consumers.CachedInfo().State.Consumers)
	})
}

// Large bodies are passed over without drowning the connection.
func TestLettersOfLargeMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		const letters, size = 30, events.MaxPayload / 2
		for i := range letters {
			park(t, b, "work", bus.RawMsg{Stream: events.StreamLog, Seq: uint64(i + 1), Subject: "results.x", Data: make([]byte, size)})
		}
		page, next, err := b.Letters(t.Context(), "work", 0, 100)
		require.NoError(t, err)
		require.Len(t, page, letters)
		require.Zero(t, next)
		require.Equal(t, size, page[0].Size)
	})
}

// A page ends after some thousand letters of others, and says where to go on.
func TestLettersLookNoFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		park(t, b, "rare", bus.RawMsg{Stream: events.StreamLog, Seq: 1})
		for i := range 5000 {
			park(t, b, "work", bus.RawMsg{Stream: events.StreamLog, Seq: uint64(i + 1)})
		}
		page, next, err := b.Letters(t.Context(), "rare", 0, 10)
		require.NoError(t, err)
		require.Empty(t, page)
		require.NotZero(t, next)
		page, next, err = b.Letters(t.Context(), "rare", next, 10)
		require.NoError(t, err)
		require.Len(t, page, 1)
		require.Zero(t, next)
	})
}

// A letter is appended once: by many at once, and by one who comes after the broker has forgotten message ids.
func TestRetryAppendsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		for _, subject := range []string{"results.abc", "events.started.e1.pc-01"} {
			m := report(t, b, subject, "poison")
			m.Header = events.Header{"ce-id": {"x"}, "Nats-TTL": {"never"}}
			park(t, b, "projector", m)
			last, err := b.LastSeq(t.Context(), events.StreamDead)
			require.NoError(t, err)
			l := letter(t, b, last)
			before, err := b.LastSeq(t.Context(), events.StreamLog)
			require.NoError(t, err)
			var all sync.WaitGroup
			var mu sync.Mutex
			firsts := 0
			retry := func(actor string) {
				seq, again, err := b.RetryLetter(t.Context(), l, actor)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || seq != before+1 {
					t.Errorf("appended at %d: %v", seq, err)
				}
				if !again {
					firsts++
				}
			}
			for i := range 10 {
				all.Go(func() { retry(fmt.Sprintf("user:op-%d", i)) })
			}
			all.Wait()
			require.Equal(t, 1, firsts)
			for range 3 {
				pause(time.Hour)
				report(t, b, subject, "later")
				retry("user:late")
			}
			require.Equal(t, 1, firsts)
			copied, _, err := b.Get(t.Context(), events.StreamLog, before+1)
			require.NoError(t, err)
			require.Equal(t, "poison", string(copied.Data))
			require.Equal(t, []string{"x"}, copied.Header["ce-id"])
			require.Equal(t, []string{fmt.Sprint(last)}, copied.Header[bus.HeaderRetryOf])
			require.True(t, strings.HasPrefix(copied.Header[bus.HeaderRetryActor][0], "user:op-"))
			require.NotContains(t, copied.Header, "Nats-TTL")
			for name := range copied.Header {
				require.False(t, strings.HasPrefix(name, "Kanade-Dead-"), name)
			}
			retried := letter(t, b, last).Retried
			require.Equal(t, []string{retried.Actor}, copied.Header[bus.HeaderRetryActor])
			require.WithinDuration(t, time.Now().Add(-3*time.Hour), retried.At, time.Minute)
		}
	})
}

// What broke off between the note and the message is finished by the next one, and bears the name of the first.
func TestRetryThatBrokeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		park(t, b, "projector", report(t, b, "results.abc", "poison"))
		log, err := b.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		full := log.CachedInfo().Config
		room := full.MaxBytes
		full.MaxBytes = 1
		_, err = b.JetStream().UpdateStream(t.Context(), full)
		require.NoError(t, err)
		_, _, err = b.RetryLetter(t.Context(), letter(t, b, 1), "user:first")
		require.ErrorIs(t, err, bus.ErrLogFull)
		full.MaxBytes = room
		_, err = b.JetStream().UpdateStream(t.Context(), full)
		require.NoError(t, err)

		pause(time.Hour)
		report(t, b, "results.abc", "later")
		seq, again, err := b.RetryLetter(t.Context(), letter(t, b, 1), "user:second")
		require.NoError(t, err)
		require.True(t, again)
		m, _, err := b.Get(t.Context(), events.StreamLog, seq)
		require.NoError(t, err)
		require.Equal(t, "poison", string(m.Data))
		require.Equal(t, []string{"user:first"}, m.Header[bus.HeaderRetryActor])
		last, err := b.LastSeq(t.Context(), events.StreamLog)
		require.NoError(t, err)
		require.Equal(t, seq, last)
	})
}
