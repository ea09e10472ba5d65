package receiver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// selfSigned makes a certificate for the loopback address.
func selfSigned(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func TestTLSAndSASL(t *testing.T) {
	t.Parallel()
	server, client := selfSigned(t)
	k, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.SeedTopics(1, "a"), kfake.EnableSASL(), kfake.TLS(server), kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.Superuser("PLAIN", "plain", "pw"), kfake.Superuser("SCRAM-SHA-256", "s256", "pw"), kfake.Superuser("SCRAM-SHA-512", "s512", "pw"),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, k: k}
	b.cl = b.client(kgo.DialTLSConfig(client), kgo.SASL(plain.Auth{User: "plain", Pass: "pw"}.AsMechanism()))
	b.adm = kadm.NewClient(b.cl)
	t.Cleanup(func() { b.cl.Close(); k.Close() })
	b.produce(numbered("a", 1, 0, 10)...)

	for _, c := range []struct {
		SASL
		problem string
	}{
		{SASL{"PLAIN", "plain", "pw"}, ""},
		{SASL{"SCRAM-SHA-256", "s256", "pw"}, ""},
		{SASL{"SCRAM-SHA-512", "s512", "pw"}, ""},
		{SASL{"PLAIN", "plain", "wrong"}, "no broker of"},
		{SASL{"SCRAM-SHA-512", "s512", "wrong"}, "no broker of"},
	} {
		t.Run(c.Mechanism+" "+c.Password, func(t *testing.T) {
			cfg := b.config("a")
			cfg.TLS, cfg.SASL, cfg.Group = client, c.SASL, "g-"+c.Mechanism
			l := newMemLog(t)
			r := start(t, cfg, l)
			if c.problem == "" {
				l.await("records", func() bool { return l.total() == 10 })
				return
			}
			r.awaitStatus("the problem", func(s Status) bool { return strings.Contains(s.Problem, c.problem) })
		})
	}
}
