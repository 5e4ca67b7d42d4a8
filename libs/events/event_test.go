package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("new-goldens", false, "write goldens that do not exist; existing ones are never touched")

// Every version of every fact has a golden that today's code writes byte for byte and reads back. One from before a field
// was added (".before-<n>") is read and written as it was.
func TestGoldens(t *testing.T) {
	for _, info := range Types() {
		t.Run(info.Name, func(t *testing.T) {
			path := filepath.Join("testdata", "golden", info.Name+".json")
			data, err := json.MarshalIndent(info.Sample, "", "  ")
			require.NoError(t, err)
			golden, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				require.NoError(t, os.WriteFile(path, append(data, '\n'), 0o644))
				return
			}
			require.NoError(t, err)
			require.Equal(t, string(golden), string(data)+"\n")
			back, err := Event{Type: info.Name, Data: golden}.Payload()
			require.NoError(t, err)
			require.Equal(t, compact(t, info.Sample), compact(t, back))
			require.Equal(t, reflect.TypeOf(info.Sample), reflect.TypeOf(back))
			requireEveryFieldSet(t, reflect.ValueOf(info.Sample), info.Name)
			older, err := filepath.Glob(filepath.Join("testdata", "golden", info.Name+".before-*.json"))
			require.NoError(t, err)
			for _, path := range older {
				golden, err := os.ReadFile(path)
				require.NoError(t, err)
				back, err := Event{Type: info.Name, Data: golden}.Payload()
				require.NoError(t, err, path)
				data, err := json.MarshalIndent(back, "", "  ")
				require.NoError(t, err)
				require.Equal(t, string(golden), string(data)+"\n", path)
			}
		})
	}
}

// A sample that leaves a field out would leave it out of the contract.
func requireEveryFieldSet(t *testing.T, v reflect.Value, path string) {
	if v.Kind() == reflect.Struct && v.Type() != reflect.TypeOf(time.Time{}) {
		for i := range v.NumField() {
			f, name := v.Field(i), path+"."+v.Type().Field(i).Name
			if name != path+".Wave" && !strings.HasSuffix(name, ".Object") && !strings.HasSuffix(name, ".ObjectSHA256") {
				require.False(t, f.IsZero(), "%s is not set in the sample", name)
			}
			requireEveryFieldSet(t, f, name)
		}
	}
}

func compact(t *testing.T, v any) string {
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return string(data)
}

func TestEscape(t *testing.T) {
	require.Equal(t, "pc-01_2Eexample_5Forg", Escape("pc-01.example_org"))
	seen := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		token := Escape(id)
		if strings.ContainsAny(token, ". *>\t\r\n") {
			t.Fatalf("%q is no token", token)
		}
		if other, ok := seen[token]; ok && other != id {
			t.Fatalf("%q and %q meet in %q", id, other, token)
		}
		seen[token] = id
		back, err := Unescape(token)
		if err != nil || back != id {
			t.Fatalf("%q came back as %q, %v", id, back, err)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "a", "_2E", "_", "_2", "_ZZ", "_61", "a_20b", "a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := Unescape(token); err == nil && Escape(id) != token {
			t.Fatalf("%q reads as %q, which is written %q", token, id, Escape(id))
		}
	})
}

func TestValidID(t *testing.T) {
	for _, ok := range []string{"a", "pc-01", "host.example.org", "a/b=c_d", strings.Repeat("x", 128)} {
		require.NoError(t, ValidID(ok), ok)
	}
	for _, bad := range []string{"", ".", "a.", "-a", "a b", "a*", "ä", "a..b", strings.Repeat("x", 129), "a\n"} {
		require.ErrorIs(t, ValidID(bad), ErrInvalidID, bad)
	}
}

func TestEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		e := Event{
			Meta: Meta{
				ID: rapid.StringN(1, 40, 80).Draw(t, "id"), Source: text.Draw(t, "source"), Actor: Actor(text.Draw(t, "actor")), Origin: text.Draw(t, "origin"),
				Time:        time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
				CausationID: text.Draw(t, "causation"), CorrelationID: text.Draw(t, "correlation"), TraceParent: text.Draw(t, "trace"),
			},
			Type: "kanade.job.saved.v1", Subject: rapid.StringN(1, 40, 80).Draw(t, "subject"),
			Data: []byte(strings.Repeat("x", rapid.IntRange(0, 2*compressOver).Draw(t, "size"))),
		}
		h, body, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range h {
			for _, c := range []byte(values[0]) {
				if name != headerID && name != HeaderMsgID && (c <= 0x20 || c >= 0x7f) {
					t.Fatalf("%s has a byte %x", name, c)
				}
			}
		}
		before, err := e.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if h2, body2, err := before.Encode(); err != nil || !reflect.DeepEqual(h, h2) || !bytes.Equal(body, body2) {
			t.Fatalf("compressed beforehand it is %v %x, else %v %x: %v", h2, body2, h, body, err)
		}
		back, err := Decode(e.NATSSubject(), h, body)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(e, back) {
			t.Fatalf("%+v came back as %+v", e, back)
		}
	})
}

func TestEnvelopeRefusals(t *testing.T) {
	good, err := New(sampleJobDeleted, Meta{ID: "x", Source: "/kanade/api", Time: sampleTime})
	require.NoError(t, err)
	for name, change := range map[string]func(Header) (string, []byte){
		"other subject": func(Header) (string, []byte) { return "events.job.other.deleted", good.Data },
		"bad time": func(h Header) (string, []byte) {
			h[headerTime] = []string{"noon"}
			return good.NATSSubject(), good.Data
		},
		"no id": func(h Header) (string, []byte) { h[headerID] = nil; return good.NATSSubject(), good.Data },
		"other version": func(h Header) (string, []byte) {
			h[headerSpecVersion] = []string{"0.3"}
			return good.NATSSubject(), good.Data
		},
		"bad escape": func(h Header) (string, []byte) { h[headerActor] = []string{"%Z"}; return good.NATSSubject(), good.Data },
		"broken body": func(h Header) (string, []byte) {
			h[headerContentEncoding] = []string{"zstd"}
			return good.NATSSubject(), []byte("no")
		},
		"unknown coding": func(h Header) (string, []byte) {
			h[headerContentEncoding] = []string{"br"}
			return good.NATSSubject(), good.Data
		},
		"no envelope": func(h Header) (string, []byte) { clear(h); return good.NATSSubject(), good.Data },
	} {
		h, _, err := good.Encode()
		require.NoError(t, err)
		subject, body := change(h)
		_, err = Decode(subject, h, body)
		var decode *DecodeError
		require.ErrorAs(t, err, &decode, name)
	}
	_, err = New(sampleJobDeleted, Meta{})
	require.Error(t, err)
	_, err = Event{Type: "kanade.job.nope.v1"}.Payload()
	require.Error(t, err)
	_, err = Event{Type: "kanade.job.deleted.v1", Data: []byte(`{}`)}.Payload()
	require.ErrorContains(t, err, "id")
}

func TestTimerSubject(t *testing.T) {
	kind, key, generation, err := ParseTimerSubject(TimerDueSubject("tick", "a.b/c", "12-x"))
	require.NoError(t, err)
	require.Equal(t, []string{"tick", "a.b/c", "12-x"}, []string{kind, key, generation})
	for _, bad := range []string{"", "timers.due.tick.a", "timers.gone.tick.a.b", "timers.set.tick._.b"} {
		_, _, _, err := ParseTimerSubject(bad)
		require.Error(t, err, bad)
	}
}

// What a document's hash was computed over is what is stored, byte for byte.
func TestDocumentIsStoredAsHashed(t *testing.T) {
	p := sampleJobSaved
	p.DocumentRevision.Document = json.RawMessage(`{"script":"a <b && c> d \u2028"}`)
	e, err := New(p, Meta{ID: "x", Time: sampleTime})
	require.NoError(t, err)
	require.Contains(t, string(e.Data), `"document":`+string(p.DocumentRevision.Document))
	back, err := e.Payload()
	require.NoError(t, err)
	require.Equal(t, string(p.DocumentRevision.Document), string(back.(JobSaved).DocumentRevision.Document))
}

func BenchmarkDecode(b *testing.B) {
	e, err := New(sampleRunFinished, Meta{ID: "x", Source: "/kanade/agent", Time: sampleTime, Actor: "agent:pc-01", CausationID: "c", CorrelationID: "d"})
	require.NoError(b, err)
	h, body, err := e.Encode()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(e.NATSSubject(), h, body); err != nil {
			b.Fatal(err)
		}
	}
}
