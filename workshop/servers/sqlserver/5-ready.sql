-- Ends when the first change has been captured: only then does a connector find a place to begin.
USE pricing;
GO
DECLARE @seconds int = 60;
WHILE sys.fn_cdc_get_max_lsn() IS NULL
BEGIN
    IF @seconds <= 0
        THROW 50002, N'no change was captured: is SQL Server Agent running?', 1;
    SET @seconds -= 1;
    WAITFOR DELAY '00:00:01';
END;
GO
