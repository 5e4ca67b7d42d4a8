package bus_test

import (
	"testing"

	"kanade/libs/bus/bustest"
)

func TestMain(m *testing.M) { bustest.Main(m) }
