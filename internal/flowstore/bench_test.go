package flowstore_test

import (
	"context"
	"testing"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

// BenchmarkAdd adds flows through two proxies, eight events each. A batch of
// 1,000 events is a busy machine's, one of 8 an idle one's.
func BenchmarkAdd(b *testing.B) {
	for name, flows := range map[string]int{"batch=1000": 125, "batch=8": 1} {
		b.Run(name, func(b *testing.B) {
			s := open(b, flowstore.Options{})
			next, added := flow.ID(1), 0
			for b.Loop() {
				var events []flow.Event
				for range flows {
					events = append(events, chain(next)...)
					next++
				}
				if err := s.Add(context.Background(), events); err != nil {
					b.Fatal(err)
				}
				added += len(events)
			}
			b.ReportMetric(float64(added)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
