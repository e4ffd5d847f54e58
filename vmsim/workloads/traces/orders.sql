CREATE TABLE item(id INTEGER PRIMARY KEY, price INTEGER, picture BLOB);
CREATE TABLE sale(id INTEGER PRIMARY KEY, item INTEGER, day INTEGER, amount INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500),
  big(b) AS MATERIALIZED (SELECT CAST(hex(zeroblob(1900)) AS BLOB))
  INSERT INTO item SELECT i, i * 7919 % 1000, substr(b, 1, 2500 + i % 500) FROM big, n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
  INSERT INTO sale SELECT i, i * 2741 % 2500 + 1, i * 31 % 365, i % 9 + 1 FROM n;
CREATE INDEX sale_item ON sale(item);
SELECT day, count(*), sum(amount * price) FROM sale JOIN item ON item.id = sale.item
  GROUP BY day ORDER BY 3 DESC LIMIT 5;
SELECT count(*), sum(length(picture)) FROM sale JOIN item ON item.id = sale.item WHERE amount > 3;
