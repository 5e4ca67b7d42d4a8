package broker_test

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kanade/libs/bus/broker"
	"kanade/libs/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(t *testing.T) broker.Config {
	return broker.Config{
		StoreDir: filepath.Join(t.TempDir(), "store"), Listen: "127.0.0.1:0", Token: "secret",
		Logger: slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, c broker.Config) *broker.Broker {
	t.Helper()
	b, err := broker.Start(c)
	require.NoError(t, err)
	t.Cleanup(b.Shutdown)
	return b
}

func TestStartListensAndDemandsTheToken(t *testing.T) {
	b := start(t, config(t))
	nc, err := nats.Connect(b.URL(), nats.Token("secret"))
	require.NoError(t, err)
	require.Equal(t, int64(events.MaxPayload), nc.MaxPayload())
	nc.Close()
	_, err = nats.Connect(b.URL())
	require.ErrorIs(t, err, nats.ErrAuthorization)
	nc, err = nats.Connect("", nats.InProcessServer(b.InProcess()), nats.Token("secret"))
	require.NoError(t, err)
	nc.Close()
}

func TestRestartKeepsPortAndStore(t *testing.T) {
	b := start(t, config(t))
	url := b.URL()
	publish := func() uint64 {
		nc, err := nats.Connect(url, nats.Token("secret"))
		require.NoError(t, err)
		defer nc.Close()
		js, err := nc.JetStream()
		require.NoError(t, err)
		_, err = js.AddStream(&nats.StreamConfig{Name: "S", Subjects: []string{"s"}})
		require.NoError(t, err)
		ack, err := js.Publish("s", nil)
		require.NoError(t, err)
		return ack.Sequence
	}
	require.Equal(t, uint64(1), publish())
	b.Shutdown()
	b.Shutdown()
	_, err := b.InProcessConn()
	require.Error(t, err)
	require.NoError(t, b.Restart())
	require.Equal(t, url, b.URL())
	require.Equal(t, uint64(2), publish())
}

func TestStartSaysWhatIsInTheWay(t *testing.T) {
	first := config(t)
	b := start(t, first)

	second := first
	_, err := broker.Start(second)
	require.ErrorIs(t, err, broker.ErrStoreInUse)
	require.ErrorContains(t, err, first.StoreDir)

	second.StoreDir, second.Listen = t.TempDir(), b.URL()[len("nats://"):]
	_, err = broker.Start(second)
	require.ErrorContains(t, err, "address already in use")
	require.ErrorContains(t, err, second.Listen)
	second.Listen = "127.0.0.1:0"
	start(t, second) // the failed start has left nothing locked

	for name, c := range map[string]broker.Config{
		"no store":   {Listen: "127.0.0.1:0", Token: "x"},
		"no token":   {StoreDir: t.TempDir(), Listen: "127.0.0.1:0"},
		"no port":    {StoreDir: t.TempDir(), Listen: "127.0.0.1", Token: "x"},
		"bad port":   {StoreDir: t.TempDir(), Listen: "127.0.0.1:nats", Token: "x"},
		"no file":    {File: filepath.Join(t.TempDir(), "none.conf")},
		"not a dir":  {StoreDir: notADirectory(t)},
		"bad config": {File: file(t, "jetstream {")},
		"no streams": {File: file(t, `listen: "127.0.0.1:-1"`), StoreDir: t.TempDir()},
	} {
		c.Logger = first.Logger
		b, err := broker.Start(c)
		require.Error(t, err, name)
		require.Nil(t, b, name)
		t.Log(name+":", err)
	}
}

func TestStartReadsAConfigurationFile(t *testing.T) {
	dir := t.TempDir()
	c := broker.Config{Logger: slog.New(slog.DiscardHandler), File: file(t, `
listen: "127.0.0.1:-1"
max_payload: 1MB
jetstream { store_dir: "`+dir+`", sync_interval: 10s }
authorization { token: "from-file" }
`)}
	b := start(t, c)
	require.Equal(t, dir, b.StoreDir())
	require.Equal(t, "from-file", b.Token())
	nc, err := nats.Connect(b.URL(), nats.Token("from-file"), nats.Timeout(5*time.Second))
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), nc.MaxPayload())
	nc.Close()
}

func TestInProcessOnlyListensNowhere(t *testing.T) {
	c := config(t)
	c.Listen = ""
	require.Empty(t, start(t, c).URL())
	l, err := net.Listen("tcp", "127.0.0.1:4222") // the server's default port is free
	if err == nil {
		require.NoError(t, l.Close())
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "broker.conf")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func notADirectory(t *testing.T) string { return filepath.Join(file(t, ""), "store") }
