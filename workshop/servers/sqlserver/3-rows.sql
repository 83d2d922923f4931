-- Rows to begin with, the same each time, and a procedure that changes some: EXEC dbo.change_prices @times = 100
USE pricing;
GO
INSERT INTO dbo.supplier (supplier_id, name)
SELECT fresh.supplier_id, fresh.name
FROM (VALUES (1, N'Valley Dairy'), (2, N'Orchard & Field'), (3, N'Harbour Fish'), (4, N'Old Mill Bakery'))
    AS fresh (supplier_id, name)
WHERE NOT EXISTS (SELECT 1 FROM dbo.supplier AS known WHERE known.supplier_id = fresh.supplier_id);
GO
WITH numbers AS (
    SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 50
)
INSERT INTO dbo.price_list (supplier_id, product_id, price)
SELECT supplier.supplier_id, 1000 * supplier.supplier_id + numbers.n, 0.49 + (37 * numbers.n) % 900 / 100.0
FROM dbo.supplier CROSS JOIN numbers
WHERE supplier.supplier_id <= 4 AND NOT EXISTS (
    SELECT 1 FROM dbo.price_list AS known
    WHERE known.supplier_id = supplier.supplier_id AND known.product_id = 1000 * supplier.supplier_id + numbers.n
);
GO
-- @times transactions, each raising or lowering one price by up to 10 %.
CREATE OR ALTER PROCEDURE dbo.change_prices @times int = 1 AS
BEGIN
    SET NOCOUNT ON;
    WHILE @times > 0
    BEGIN
        WITH one AS (SELECT TOP (1) price, valid_from FROM dbo.price_list ORDER BY NEWID())
        UPDATE one SET
            price = CASE WHEN price < 0.20 THEN 1.00 ELSE ROUND(price * (0.9 + 0.2 * RAND()), 2) END,
            valid_from = SYSUTCDATETIME();
        SET @times -= 1;
    END;
END;
GO
